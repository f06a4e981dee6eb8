"""Trained end to end: the example's GPT, and a GPT-2 of Hugging Face that answers by its own `generate`."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F

import lengthwise as lw
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.sampling import generator, suite_problems, training_problems
from own_model_samples import IDS, ROOT, SIZE, lines_of_addition

ADDITION = lw.Format("addition")


@pytest.mark.slow
def test_the_example_fails_at_ten_digits_and_then_is_right_at_two_hundred(capsys):
    path = ROOT / "examples" / "own_gpt.py"
    spec = importlib.util.spec_from_file_location("own_gpt", path)
    example = importlib.util.module_from_spec(spec)
    sys.modules["own_gpt"] = example
    spec.loader.exec_module(example)
    found = example.main(seed=2, steps=1500, resteps=1000, count=50)
    printed = capsys.readouterr().out
    assert found["before"] == [50, 0, 0, 0, 0]
    assert found["after"] == [50] * 5
    assert printed.count("| 200 |") == 2
    assert ": right" in printed


@pytest.mark.slow
def test_a_gpt2_trained_with_the_bias_generates_sums_of_sixty_digits():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    drop = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    ids = {"vocab_size": SIZE, "bos_token_id": 14, "eos_token_id": 2, "pad_token_id": 0}
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, **ids, **drop)
    model, known, layout = GPT2LMHeadModel(config), Tokens(ADDITION, IDS), ADDITION.at(6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        for step in range(600):
            optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 100, (600 - step) / 300)
            rng = generator(0, "train", step)
            operands = training_problems(
                layout.task, rng, 128, length=5, width=6, carry_fraction=0.3
            )
            source, target = (known.of(one) for one in layout.batch(operands))
            both = torch.cat([source, target[:, :-1]], dim=1)
            logits = model(input_ids=both).logits[:, source.shape[1] :]
            loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        long = ADDITION.at(61)
        rng = generator(0, "test")
        operands = suite_problems(
            long.task, rng, 16, suite="carry", length=60, width=61, split="any"
        )
        source, target = (known.of(one) for one in long.batch(operands))
        prompt = torch.cat([source, target[:, :1]], dim=1)
        written = model.generate(prompt, max_new_tokens=62, do_sample=False)
    assert torch.equal(written[:, prompt.shape[1] :], target[:, 1:])
