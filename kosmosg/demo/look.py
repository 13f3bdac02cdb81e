"""How the page looks: colours, fonts, and the files beside this one."""

from importlib.resources import files

import gradio as gr


def read_text(name: str) -> str:
    """Read a file beside this one."""
    return files("kosmosg.demo").joinpath(name).read_text(encoding="utf-8")


def make_theme() -> gr.themes.Base:
    """Gradio's plain theme with the fonts of the system: others would be fetched."""
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # Small text and the main button as dark as contrast asks for (WCAG 2.1, 4.5 to 1).
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
    )
