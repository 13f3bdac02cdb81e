"""Small random models of the classes that curation uses, in folders as the Hub has them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    MptConfig,
    MptForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTImageProcessorPil,
)

SYMBOLS = ("<pad>", "</s>", "<image>")
LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}


def write_blip2(folder: Path) -> Path:
    tokenizer = _tokenizer(folder)
    config: Any = Blip2Config(
        vision_config={**TOWER, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14},
        qformer_config={**TOWER, "num_hidden_layers": 2, "encoder_hidden_size": 16},
        text_config={
            **{"model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 16},
            **{"word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "max_position_embeddings": 64},
            **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
        },
        num_query_tokens=4,
        image_token_index=2,
    )
    _save(Blip2ForConditionalGeneration(config), folder)
    BlipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def write_qwen2(folder: Path) -> Path:
    tokenizer = _tokenizer(folder, chat_template=CHAT)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return _save(Qwen2ForCausalLM(config), folder)


def write_mpt(folder: Path) -> Path:
    tokenizer = _tokenizer(folder, pad_token=None)
    config = MptConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        n_heads=2,
        n_layers=1,
        max_seq_len=2048,
        eos_token_id=1,
    )
    return _save(MptForCausalLM(config), folder)


def write_clipseg(folder: Path) -> Path:
    tokenizer = _tokenizer(folder, model_max_length=20)
    config = CLIPSegConfig(
        vision_config={**TOWER, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
        text_config={
            **{**TOWER, "num_hidden_layers": 1, "vocab_size": len(tokenizer)},
            **{"max_position_embeddings": 20, "pad_token_id": 0, "eos_token_id": 1},
        },
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    _save(CLIPSegForImageSegmentation(config), folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, **options: Any) -> PreTrainedTokenizerFast:
    """Write a tokenizer that knows characters, and ends each text."""
    vocabulary = {symbol: number for number, symbol in enumerate((*SYMBOLS, *LETTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(
        **{
            "tokenizer_object": tokenizer,
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "additional_special_tokens": ["<image>"],
            **options,
        }
    )
    fast.save_pretrained(folder)
    return fast


def _save(model: Any, folder: Path) -> Path:
    """Make a model whose outputs vary, and write it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
