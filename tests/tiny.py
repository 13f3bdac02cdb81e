"""Small random models in the full layout: every part is real, only small and untrained."""

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from tokenizers import Tokenizer, models
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from kosmosg.checkpoints import stable_diffusion
from kosmosg.checkpoints.parameter_names import KOSMOSG, RECONSTRUCTION, UNET, VAE, official_key
from kosmosg.checkpoints.stable_diffusion import SD15_SCHEDULER
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.tokenizer import (
    ADDED_SYMBOLS,
    DICTIONARY_FILE,
    LEADING_SYMBOLS,
    SENTENCEPIECE_FILE,
    KosmosGTokenizer,
)

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "image_token_length": 8,
    "decoder": {
        "decoder_layers": 2,
        "decoder_embed_dim": 64,
        "decoder_attention_heads": 4,
        "decoder_ffn_embed_dim": 128,
        "activation_fn": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "latent_query_num": 8,
        "max_target_positions": 512,
    },
    "vision": {
        "image_size": 56,
        "patch_size": 14,
        "width": 32,
        "heads": 4,
        "layers": 2,
        "mlp_ratio": 4.0,
        "quick_gelu": True,
    },
    "aligner": {
        "dim": 32,
        "heads": 4,
        "ffn": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "position_table": 514,
        "queries": 77,
    },
    "layer_norm_eps": 1e-5,
}
WORDS = [
    *("a", "the", "of", "in", "on", "at", "with", "and", "to", "next", "dog", "cat", "robot"),
    *("hat", "suit", "beach", "castle", "garden", "night", "snow", "photo", "painting", "oil"),
    *("red", "blue", "green", "wearing", "swimming", "underwater", "running", "sitting"),
]


def write_tokenizer(directory: Path, vocabulary: int) -> KosmosGTokenizer:
    """Train a SentencePiece model on a few words and write its dictionary."""
    directory.mkdir(parents=True, exist_ok=True)
    chooser = random.Random(0)
    corpus = directory / "corpus.txt"
    lines = (" ".join(chooser.choices(WORDS, k=8)) for _ in range(500))
    corpus.write_text("\n".join(lines), encoding="utf-8")
    entries = vocabulary - len(LEADING_SYMBOLS) - len(ADDED_SYMBOLS)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=min(entries, 120),
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (directory / "tokenizer.model").rename(directory / SENTENCEPIECE_FILE)
    (directory / "tokenizer.vocab").unlink()
    corpus.unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(directory / SENTENCEPIECE_FILE))
    pieces = [model.id_to_piece(i) for i in range(len(model)) if not model.is_control(i)]
    pieces = [piece for piece in pieces if piece not in LEADING_SYMBOLS]
    # As fairseq fills a dictionary up to a size.
    pieces += [f"madeupword{i:04d}" for i in range(entries - len(pieces))]
    text = "".join(f"{piece} 1\n" for piece in pieces)
    (directory / DICTIONARY_FILE).write_text(text, encoding="utf-8")
    return KosmosGTokenizer.from_pretrained(directory)


def write_kosmos2(folder: Path, extra: Sequence[str] = ("<grounding>",)) -> None:
    """Write a small random Kosmos-2, whose vocabulary is ours, shuffled and with words of its own.

    Args:
        folder: Gets ``kosmos2``, and ``tokenizer``, which is KOSMOS-G's.
        extra: The words of its own.
    """
    words = write_tokenizer(folder / "tokenizer", SIZES["vocab_size"])
    leading, rest = words.symbols[:4], [*words.symbols[4:], *extra]
    random.Random(0).shuffle(rest)
    vocabulary = {symbol: index for index, symbol in enumerate(leading + rest)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "kosmos2")
    config: Any = KosmosGConfig.from_sizes(SIZES).kosmos2
    config.text_config.vocab_size = len(vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Kosmos2ForConditionalGeneration(Kosmos2Config.from_dict(config.to_dict()))
    model.save_pretrained(folder / "kosmos2")


def write_clip_tokenizer(directory: Path) -> CLIPTokenizer:
    """Write a tokenizer of CLIP's kind that knows letters."""
    symbols = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    tokenizer.save_pretrained(directory)
    return tokenizer


def make_random_decoder(cross_attention_dim: int, scale: int = 2) -> StableDiffusionPipeline:
    """Build a U-Net, a VAE and Stable Diffusion's scheduler."""
    channels: Any = [16, 32, 32, 32][: scale.bit_length()]
    down: Any = ["DownEncoderBlock2D"] * len(channels)
    up: Any = ["UpDecoderBlock2D"] * len(channels)
    unet = UNet2DConditionModel(
        sample_size=64 // scale,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        sample_size=64,
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=8,
    )
    return stable_diffusion.make_decoder(unet, vae, stable_diffusion.make_pndm(SD15_SCHEDULER))


def make_safety_checker(flag_all: bool = False) -> dict[str, Any]:
    """Build the checker's network, which flags nothing, or everything, and what goes before it."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    config = CLIPConfig(
        vision_config={**tower, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16},
        text_config={**tower, "num_hidden_layers": 1},
        projection_dim=32,
    )
    model = StableDiffusionSafetyChecker(config).eval()
    # A cosine lies in [-1, 1]; these thresholds are never, or always, exceeded.
    threshold = -2.0 if flag_all else 2.0
    model.concept_embeds_weights.data.fill_(threshold)
    model.special_care_embeds_weights.data.fill_(2.0)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return {"safety_checker": model, "feature_extractor": processor}


def enliven(model: KosmosG) -> KosmosG:
    """Scale up the linear layers: as initialised, an image hardly moves the condition."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def write_weights(
    directory: Path,
    *,
    sizes: dict[str, Any] = SIZES,
    scale: int = 2,
    safety_checker: dict[str, Any] | None = None,
) -> Path:
    """Write a weights directory with random weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kosmosg = enliven(KosmosG(KosmosGConfig.from_sizes(sizes)))
        tokenizer = write_tokenizer(directory / "tokenizer", sizes["vocab_size"])
        decoder = make_random_decoder(sizes["aligner"]["dim"], scale)
    pipeline = KosmosGPipeline(
        kosmosg=kosmosg,
        tokenizer=tokenizer,
        unet=decoder.unet,
        vae=decoder.vae,
        scheduler=decoder.scheduler,
        **safety_checker or {},
    )
    pipeline.save_pretrained(directory)
    return directory


def official_checkpoint(stage: str = "instruct", decoder: bool = True) -> dict[str, torch.Tensor]:
    """Fabricate a small checkpoint with the authors' names, as a trainer would save it.

    Args:
        stage: "lm", "align" or "instruct".
        decoder: With U-Net and VAE, which only a final checkpoint has.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = KosmosG(KosmosGConfig.from_sizes(SIZES))
        sd = make_random_decoder(SIZES["aligner"]["dim"])
        reconstruction = Reconstruction(model.config.aligner_config)
    modules: dict[str, Any] = {KOSMOSG: model}
    modules |= {UNET: sd.unet, VAE: sd.vae} if decoder else {}
    modules |= {RECONSTRUCTION: reconstruction} if stage == "align" else {}
    tensors = {
        official_key(part, name): tensor.half()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    embedding = tensors["gpt_model.decoder.embed_tokens.weight"]
    tensors["gpt_model.decoder.output_projection.weight"] = embedding
    tensors["gpt_model.decoder.embed_positions._float_tensor"] = torch.empty(1)
    tensors["gpt_model.decoder.self_attn_sope.scale"] = torch.ones(8)
    if stage == "lm":
        tensors = {key: value for key, value in tensors.items() if "aligner" not in str(key)}
    if stage == "align":
        tensors["aligner.clip_encoder.text_model.final_layer_norm.bias"] = torch.zeros(4)
    return tensors  # type: ignore[return-value]
