"""A world of real artwork, small enough to train a whole KOSMOS-G in (paper, section 3.1).

Images of 128 × 128 pixels come from descriptions, and with them everything that the paper's data
pipeline has to extract with other models: captions with the spans of their entities, masks and
crops of these, edit pairs with instructions, interleaved documents, and the ground truth.
"""

from miniature.world.art import Art, fetch_art
from miniature.world.captions import Caption, noun_phrase, write_caption
from miniature.world.crops import entity_crops
from miniature.world.description import (
    COLOURS,
    NATURAL,
    NOTHING,
    RELATIONS,
    SCENES,
    STYLES,
    Description,
    Entity,
    Figure,
)
from miniature.world.documents import sample_document, sample_sentence
from miniature.world.edits import sample_edit
from miniature.world.render import Rendering, portrait, render, sample_rendering
from miniature.world.world import World

__all__ = [
    "COLOURS",
    "NATURAL",
    "NOTHING",
    "RELATIONS",
    "SCENES",
    "STYLES",
    "Art",
    "Caption",
    "Description",
    "Entity",
    "Figure",
    "Rendering",
    "World",
    "entity_crops",
    "fetch_art",
    "noun_phrase",
    "portrait",
    "render",
    "sample_document",
    "sample_edit",
    "sample_rendering",
    "sample_sentence",
    "write_caption",
]
