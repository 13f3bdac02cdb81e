"""A drawn world, small enough to train a whole KOSMOS-G in (paper, section 3.1, in miniature).

Images of 64 × 64 pixels come from descriptions, and with them everything that the paper's data
pipeline has to extract with other models: captions with the spans of their entities, masks and
crops of these, edit pairs with instructions, interleaved documents, and the ground truth.
"""

from miniature.world.captions import Caption, EntitySpan, noun_phrase, write_caption
from miniature.world.crops import EntityCrop, contact_sheet, entity_crops
from miniature.world.description import (
    ACCESSORIES,
    COLOURS,
    RELATIONS,
    SCENES,
    SHAPES,
    STYLES,
    TEXTURES,
    Description,
    Entity,
    Figure,
    Labels,
    is_held_out,
    labels,
    may_be_trained_on,
    sample_description,
)
from miniature.world.documents import Document, sample_document, sample_sentence
from miniature.world.edits import Edit, sample_edit
from miniature.world.render import Rendering, portrait, render, sample_rendering

__all__ = [
    "ACCESSORIES",
    "COLOURS",
    "RELATIONS",
    "SCENES",
    "SHAPES",
    "STYLES",
    "TEXTURES",
    "Caption",
    "Description",
    "Document",
    "Edit",
    "Entity",
    "EntityCrop",
    "EntitySpan",
    "Figure",
    "Labels",
    "Rendering",
    "contact_sheet",
    "entity_crops",
    "is_held_out",
    "labels",
    "may_be_trained_on",
    "noun_phrase",
    "portrait",
    "render",
    "sample_description",
    "sample_document",
    "sample_edit",
    "sample_rendering",
    "sample_sentence",
    "write_caption",
]
