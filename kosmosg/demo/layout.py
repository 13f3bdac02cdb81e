"""What stands on the page, and where."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import gradio as gr

from kosmosg.demo import show
from kosmosg.demo.form import DEFAULTS
from kosmosg.demo.mask import PAINT
from kosmosg.diffusion.settings import CONTROL_TYPES, FEWEST_FRAMES, SAMPLER_NAMES

MOST_STEPS, MOST_IMAGES, MOST_GUIDANCE, MOST_MIXED = 250, 8, 20, 16
FORMATS = ("webp", "jpg", "png")
BRUSH = gr.Brush(colors=[PAINT], default_size=20, color_mode="fixed")
# By the browser alone: a component that is changed from here loses its own `preprocess`.
FIT_BRUSH = (
    "() => ({ __type__: 'update', brush: { ...%s, default_size: window.kosmosg.brushSize() } })"
)


@dataclass
class Page:
    """The components, by what they are for.

    Attributes:
        inputs: By the names of the server's inputs.
        errors: By where on the page an error belongs.
        folds: What has to be unfolded for an error to be seen, likewise.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["parts"][name]
        except KeyError:
            raise AttributeError(name) from None


def lay_out(title: str, examples: Sequence[str], *, mixes: bool) -> Page:
    """Lay out the page, inside of a ``gr.Blocks``.

    Args:
        title: Who draws.
        examples: What to write on the buttons of the examples.
        mixes: Whether it can mix images.
    """
    page = Page()
    gr.Markdown(
        f"# KOSMOS-G\nImages of the very subjects in your images. Drawn by {title}.",
        elem_id="heading",
    )
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="write"), gr.Tabs():
            with gr.Tab("From a prompt"):
                _lay_out_prompt(page, examples)
            with gr.Tab("Mix two images"):
                _lay_out_mix(page, mixes)
        with gr.Column(elem_id="results"):
            _lay_out_results(page)
        with gr.Column(elem_id="settings"):
            _lay_out_settings(page)
            _lay_out_adapters(page)
    return page


def _error() -> gr.HTML:
    return gr.HTML(visible=False, elem_classes="error-box")


def _lay_out_prompt(page: Page, examples: Sequence[str]) -> None:
    parts = page.parts
    with gr.Group(elem_id="prompt-box"):
        page.inputs["prompt"] = gr.Textbox(
            label="Prompt",
            info="Drop, paste or add an image: it stands in the text as <i>, where the cursor is.",
            placeholder="a <i> in the snow",
            lines=3,
            elem_id="prompt",
        )
        parts["images"] = gr.Gallery(
            label="Images of the prompt, in the order of <i>",
            columns=6,
            fit_columns=False,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            visible=False,
            elem_id="images",
        )
        with gr.Row():
            parts["add"] = gr.UploadButton(
                "Add images", file_count="multiple", size="sm", elem_id="add-images"
            )
            for name, label in (("earlier", "◀ Earlier"), ("later", "Later ▶")):
                parts[name] = gr.Button(label, size="sm", visible=False, min_width=60)
            parts["replace"] = gr.UploadButton("Replace", size="sm", visible=False, min_width=60)
            parts["remove"] = gr.Button("Remove", size="sm", visible=False, min_width=60)
    for name in ("add", "replace"):
        parts[name].preprocess = _file_paths
    parts["hint"] = gr.HTML(visible=False, elem_classes="hint")
    page.errors["prompt"] = _error()
    parts["cursor"] = gr.Number(value=0, visible=False)
    # Pressed by the page itself, when a folder is dropped.
    parts["folder"] = gr.Button(visible="hidden", elem_id="folder-dropped")
    parts["folder_name"] = gr.Textbox(visible=False)
    with gr.Row():
        parts["draw"] = gr.Button("Draw", variant="primary", elem_id="draw")
        parts["cancel"] = gr.Button("Cancel", interactive=False, elem_id="cancel")
    if examples:
        gr.HTML("Examples", elem_classes="hint")
        with gr.Row(elem_classes="examples"):
            parts["examples"] = [gr.Button(label, size="sm") for label in examples]


def _lay_out_mix(page: Page, mixes: bool) -> None:
    parts = page.parts
    if not mixes:
        gr.Markdown(
            "A container cannot mix images: its interface has no input for it. Start the page "
            "without `--target` on the machine with the weights."
        )
    with gr.Column(visible=mixes):
        with gr.Row():
            parts["first"] = _image("First image", "first")
            parts["second"] = _image("Second image", "second")
        parts["mix_prompt"] = gr.Textbox(
            "<i>", label="Prompt", info="With one <i>, which both images take turns in."
        )
        parts["frames"] = gr.Slider(
            FEWEST_FRAMES, MOST_MIXED, 5, step=1, label="Images from the first to the second"
        )
        page.errors["mix"] = _error()
        with gr.Row():
            parts["mix"] = gr.Button("Mix", variant="primary", elem_id="mix")
            parts["cancel_mix"] = gr.Button("Cancel", interactive=False)


def _lay_out_results(page: Page) -> None:
    parts = page.parts
    parts["progress"] = gr.HTML(
        show.status("Nothing is drawn yet. Write a prompt, or take an example."),
        elem_id="progress",
    )
    parts["results"] = gr.Gallery(
        label="Images",
        columns=2,
        height="auto",
        object_fit="contain",
        interactive=False,
        buttons=["download", "fullscreen"],
        visible=False,
        elem_id="images-drawn",
    )
    parts["slider"] = gr.Slider(
        1, 2, 1, step=1, label="From the first image to the second", visible=False, elem_id="slide"
    )
    with gr.Row():
        parts["again"] = gr.Button("Again with this seed", size="sm", visible=False, min_width=110)
        parts["use"] = gr.Button("Use in the prompt", size="sm", visible=False, min_width=110)
        parts["request"] = gr.DownloadButton(
            "Request file", size="sm", visible=False, min_width=110
        )
    with gr.Accordion("Settings of these images", open=False, visible=False) as told:
        parts["command"] = gr.Code(
            label="For cog predict, files in the working directory",
            language="shell",
            interactive=False,
            elem_classes="code",
        )
        parts["json"] = gr.Code(
            label="As a request file", language="json", interactive=False, elem_classes="code"
        )
    parts["told"] = told
    parts["drawn"], parts["chosen"], parts["marked"] = gr.State(), gr.State(0), gr.State(-1)


def _lay_out_settings(page: Page) -> None:
    inputs = page.inputs
    page.errors["settings"] = _error()
    with gr.Group():
        inputs["negative_prompt"] = gr.Textbox(
            DEFAULTS["negative_prompt"], label="Negative prompt", info="What should not appear."
        )
        with gr.Row():
            inputs["num_images"] = gr.Slider(1, MOST_IMAGES, 1, step=1, label="Images")
            inputs["num_inference_steps"] = gr.Slider(
                1, MOST_STEPS, DEFAULTS["num_inference_steps"], step=1, label="Steps"
            )
        with gr.Row():
            inputs["text_guidance_scale"] = gr.Slider(
                1, MOST_GUIDANCE, DEFAULTS["text_guidance_scale"], step=0.1, label="Guidance"
            )
            inputs["guidance_end"] = gr.Slider(
                0, 1, DEFAULTS["guidance_end"], step=0.05, label="Guidance until"
            )
        with gr.Row():
            inputs["seed"] = gr.Number(None, label="Seed", placeholder="random", elem_id="seed")
            inputs["scheduler"] = gr.Dropdown(
                list(SAMPLER_NAMES), value=DEFAULTS["scheduler"], label="Scheduler"
            )
        with gr.Row():
            for name in ("width", "height"):
                inputs[name] = gr.Number(
                    None, label=name.capitalize(), placeholder="as trained", min_width=80
                )
            inputs["output_format"] = gr.Dropdown(
                list(FORMATS), value=DEFAULTS["output_format"], label="Format", min_width=80
            )


def _lay_out_adapters(page: Page) -> None:
    inputs, parts = page.inputs, page.parts
    with gr.Accordion("LoRA", open=False) as page.folds["lora"]:
        inputs["lora_weights"] = gr.File(
            label="LoRA for Stable Diffusion v1.5, .safetensors", height=110, elem_id="lora"
        )
        inputs["lora_weights"].preprocess = _file_paths
        inputs["lora_scale"] = gr.Slider(0, 2, DEFAULTS["lora_scale"], step=0.05, label="Strength")
        page.errors["lora"] = _error()
    with gr.Accordion("ControlNet", open=False) as page.folds["control"]:
        with gr.Row():
            inputs["control_image"] = _image("Image that fixes the layout", "control")
            parts["map"] = gr.Image(
                label="Its map",
                interactive=False,
                height=220,
                buttons=["fullscreen"],
                elem_id="map",
            )
        with gr.Row():
            inputs["control_type"] = gr.Dropdown(
                list(CONTROL_TYPES), value=DEFAULTS["control_type"], label="ControlNet"
            )
            inputs["control_scale"] = gr.Slider(
                0, 2, DEFAULTS["control_scale"], step=0.05, label="Strength"
            )
        inputs["control_preprocess"] = gr.Checkbox(
            DEFAULTS["control_preprocess"], label="Derive the map from the image"
        )
        page.errors["control"] = _error()
    with gr.Accordion("Initial image and mask", open=False) as page.folds["init"]:
        gr.HTML("Paint over what may change. Without paint, all of it may.", elem_classes="hint")
        editor: Any = gr.ImageEditor(
            label="Initial image",
            format="png",
            sources=["upload", "clipboard"],
            transforms=[],
            layers=False,
            brush=BRUSH,
            height=420,
            elem_id="init",
        )
        editor.preprocess = _painted_files
        editor.upload(None, None, editor, js=FIT_BRUSH % json.dumps(asdict(BRUSH)))
        parts["init"] = editor
        inputs["prompt_strength"] = gr.Slider(
            0, 1, DEFAULTS["prompt_strength"], step=0.05, label="How far to move from the image"
        )
        page.errors["init"] = _error()


def _image(label: str, elem_id: str) -> gr.Image:
    image = gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], height=220, elem_id=elem_id
    )
    image.preprocess = _file_paths
    return image


# In place of gradio's own, which open images, and leave an empty file for every file that they
# take: what reads files here, and says what is wrong with them, is what the server uses. They are
# set on the components, as gradio writes a stub beside the module of a class of one's own.
def _file_paths(payload: Any) -> Any:
    """Take the path of a file that was uploaded, or those of several."""
    if payload is None:
        return None
    several = getattr(payload, "root", None)
    return payload.path if several is None else [each.path for each in several]


def _painted_files(payload: Any) -> dict[str, Any] | None:
    """Take the files of an image that was painted on."""
    if payload is None:
        return None
    files = {name: getattr(payload, name) for name in ("background", "composite")}
    paths = {name: file and file.path for name, file in files.items()}
    return {**paths, "layers": [layer.path for layer in payload.layers]}
