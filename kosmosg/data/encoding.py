"""Samples ↔ the files that stand for them in a shard.

``KEY.json`` says what a sample is, the other files of its key are its images, in any format that is
read, such as ``jpg``, ``png`` or ``webp``:

    kind           KEY.json                                               images
    caption        {"kind": "caption", "caption": "…"}                    KEY.image.png (not read
                                                                          for text alone)
    edit           {"kind": "edit", "caption": "…", "instruction": "…"}   KEY.before.png
                                                                          KEY.after.png
    compositional  {"kind": "compositional", "caption": "A cat on …",     KEY.target.png
                    "entities": [{"start": 2, "end": 5}, …]}              KEY.crop0.png, …
                                                                          KEY.masked0.png, …
    subject        {"kind": "subject", "prompt": "…", "images": 2}        KEY.image0.png, …
                                                                          KEY.target.png
    interleaved    {"kind": "interleaved",                                KEY.image0.png
                    "parts": ["text", {"image": 0}, "text", …]}           KEY.image1.png, …

Kinds may be mixed within a shard. Spans count characters, go from left to right and do not
overlap.
"""

import json
from collections.abc import Callable, Collection, Iterable
from io import BytesIO
from typing import Any

from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.options import ImageFormat
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    EncodedImage,
    EntityImages,
    InterleavedDocument,
    Sample,
    SubjectSample,
    compose,
    decode_image,
)
from kosmosg.prompts.images import UNREAD_SUFFIXES, image_suffixes

_EXTENSION = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}


def encode_sample(
    sample: Sample, image_format: ImageFormat = "PNG", **notes: str
) -> dict[str, bytes]:
    """Turn a sample into the files that stand for it.

    Args:
        sample: Any sample.
        image_format: Of the images; PNG and WebP are lossless.
        notes: Further entries for its JSON, which readers pass over, such as where it is from.

    Returns:
        The files by their names behind the key, such as ``json`` and ``target.png``.
    """
    metadata, images = _describe(sample)
    parts = {"json": json.dumps(metadata | notes, ensure_ascii=False).encode()}
    for name, image in images.items():
        buffer = BytesIO()
        image.save(buffer, format=image_format, **_SAVE_OPTIONS.get(image_format, {}))
        parts[f"{name}.{_EXTENSION[image_format]}"] = buffer.getvalue()
    return parts


def decode_sample(
    names: Collection[str], read: Callable[[str], bytes], rules: CaptionRules
) -> Sample:
    """Make a sample of the files that stand for it; images of entities stay encoded.

    Args:
        names: Of its files, behind the key.
        read: Reads one of them.
        rules: What to read of captions.

    Raises:
        BadSample: If it cannot be used.
    """
    parts = _Parts(names, read)
    metadata = parts.metadata()
    match metadata.get("kind"):
        case "caption":
            return _decode_caption(metadata, parts, rules)
        case "edit":
            return EditSample(
                caption=_text(metadata, "caption"),
                instruction=_text(metadata, "instruction"),
                before=parts.image("before"),
                after=parts.image("after"),
            )
        case "compositional":
            return _decode_compositional(metadata, parts)
        case "subject":
            return _decode_subject(metadata, parts)
        case "interleaved":
            return _decode_interleaved(metadata, parts)
        case kind:
            raise BadSample("metadata", f"unknown kind {kind!r}")


def encodable(text: str) -> str:
    """Refuse half a surrogate pair, which JSON can hold and no tokenizer can read.

    Raises:
        BadSample: If there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadSample("encoding", str(error)) from error
    return text


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image, whether it can be read or not."""
    suffix = f".{name.rpartition('.')[2].lower()}"
    return suffix in image_suffixes() or suffix in UNREAD_SUFFIXES


def find_image(names: Iterable[str], part: str = "") -> str:
    """Find the image of a part among the names of a sample's files, such as ``image.png``.

    Args:
        names: Without the key.
        part: Which; nothing where files are called by their suffix alone.

    Raises:
        BadSample: If there is none, or none in a format that is read.
    """
    names = sorted(names)
    images = [name for name in names if name.rpartition(".")[0] == part and is_image(name)]
    for name in images:
        if f".{name.rpartition('.')[2]}" in image_suffixes():
            return name
    if images:
        raise BadSample("image-format", f"{images[0]} is not read; save it as JPEG or PNG")
    raise BadSample("missing-part", f"no image{part and f' {part!r}'} among {names}")


def _describe(sample: Sample) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    match sample:
        case CaptionSample(caption=caption, image=image):
            metadata = {"kind": "caption", "caption": caption}
            return metadata, {} if image is None else {"image": image}
        case EditSample(caption=caption, instruction=instruction):
            metadata = {"kind": "edit", "caption": caption, "instruction": instruction}
            return metadata, {"before": sample.before, "after": sample.after}
        case CompositionalSample(caption=caption, entities=entities):
            spans = [{"start": entity.span[0], "end": entity.span[1]} for entity in entities]
            images = {"target": sample.target}
            for number, entity in enumerate(entities):
                images[f"crop{number}"] = decode_image(entity.crop)
                images[f"masked{number}"] = decode_image(entity.masked_crop)
            return {"kind": "compositional", "caption": caption, "entities": spans}, images
        case SubjectSample(prompt=prompt, images=shown):
            images = {f"image{number}": image for number, image in enumerate(shown)}
            metadata = {"kind": "subject", "prompt": prompt, "images": len(shown)}
            return metadata, images | {"target": sample.target}
        case InterleavedDocument(parts=parts):
            images = {}
            listed: list[str | dict[str, int]] = []
            for part in parts:
                if isinstance(part, str):
                    listed.append(part)
                else:
                    listed.append({"image": len(images)})
                    images[f"image{len(images)}"] = part
            return {"kind": "interleaved", "parts": listed}, images


class _Parts:
    """The files of one sample."""

    def __init__(self, names: Collection[str], read: Callable[[str], bytes]):
        self._names, self._read = names, read

    def metadata(self) -> dict[str, Any]:
        if "json" not in self._names:
            raise BadSample("metadata", f"no json among {sorted(self._names)}")
        try:
            metadata = json.loads(self._read("json"))
        except (ValueError, RecursionError) as error:
            raise BadSample("metadata", f"the json does not parse ({error})") from error
        if not isinstance(metadata, dict):
            raise BadSample("metadata", f"wanted a json object, not a {type(metadata).__name__}")
        return metadata

    def image(self, part: str) -> Image.Image:
        return decode_image(self.encoded(part))

    def encoded(self, part: str) -> EncodedImage:
        return EncodedImage(data=self._read(find_image(self._names, part)), name=part)


def _decode_caption(metadata: dict[str, Any], parts: _Parts, rules: CaptionRules) -> Sample:
    caption = _text(metadata, "caption")
    if rules.text_only:
        return CaptionSample(caption=caption, image=None)
    image = parts.image("image")
    rules.check_size(*image.size)
    return CaptionSample(caption=caption, image=image)


def _decode_compositional(metadata: dict[str, Any], parts: _Parts) -> Sample:
    caption = _text(metadata, "caption")
    spans = _spans(metadata, len(caption))
    entities = tuple(
        EntityImages(
            span=span,
            crop=parts.encoded(f"crop{number}"),
            masked_crop=parts.encoded(f"masked{number}"),
        )
        for number, span in enumerate(spans)
    )
    return compose(caption, entities, parts.image("target"))


def _decode_subject(metadata: dict[str, Any], parts: _Parts) -> Sample:
    count = metadata.get("images")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise BadSample("metadata", f"'images' must be a number from 1 on, not {count!r:.80}")
    return SubjectSample(
        prompt=_text(metadata, "prompt"),
        images=tuple(parts.image(f"image{number}") for number in range(count)),
        target=parts.image("target"),
    )


def _decode_interleaved(metadata: dict[str, Any], parts: _Parts) -> Sample:
    listed = metadata.get("parts")
    if not isinstance(listed, list):
        raise BadSample("metadata", f"'parts' must be a list, not {listed!r:.80}")
    decoded: list[str | Image.Image] = []
    for part in listed:
        match part:
            case str():
                decoded.append(encodable(part))
            case {"image": int(number)}:
                decoded.append(parts.image(f"image{number}"))
            case _:
                raise BadSample("metadata", f"a part is a text or an image, not {part!r:.80}")
    return InterleavedDocument(parts=tuple(decoded))


def _text(metadata: dict[str, Any], field_name: str) -> str:
    value = metadata.get(field_name)
    if not isinstance(value, str):
        raise BadSample("metadata", f"{field_name!r} must be a text, not {value!r:.80}")
    return encodable(value)


def _spans(metadata: dict[str, Any], length: int) -> list[tuple[int, int]]:
    listed = metadata.get("entities")
    if not isinstance(listed, list):
        raise BadSample("metadata", f"'entities' must be a list, not {listed!r:.80}")
    spans: list[tuple[int, int]] = []
    position = 0
    for entity in listed:
        match entity:
            case {"start": int(start), "end": int(end)} if position <= start < end <= length:
                spans.append((start, end))
                position = end
            case _:
                raise BadSample("metadata", f"not a span of the caption: {entity!r:.80}")
    return spans
