"""How samples are varied."""

# How stage 3 varies its samples (paper, section 2.3, and the authors' scripts): probability that an
# entity keeps its background, that a sample's entities lose their words, an edit its caption.
KEEP_BACKGROUND = DROP_TEXT = DROP_CAPTION = 0.5
