"""What the peers' benchmark measures: models of our size, and decoding that is theirs."""

import pytest
import torch

from lengthwise.bench import peers
from lengthwise.bench.models import bench_config, random_problems
from lengthwise.errors import InputError
from lengthwise.problems.format import Format
from lengthwise.runs.parts import make_model


@pytest.mark.trains
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_has_our_layers_and_decodes_by_its_cache_what_it_says(name):
    config, layout = bench_config("addition", calibrated=True), Format("addition").at(4)
    tokens, longest = len(layout.vocabulary), layout.source_length + layout.target_length + 1
    torch.manual_seed(0)
    model = peers.PEERS[name](config, tokens, longest).eval()
    inside = [p.numel() for n, p in model.named_parameters() if "emb" not in n and "wpe" not in n]
    ours = sum(p.numel() for n, p in make_model(config).named_parameters() if "embed" not in n)
    # Ours has cross-attention besides, which reads what theirs finds in one sequence.
    assert 0.6 < sum(inside) / ours < 1.0
    source = layout.source(random_problems(layout, 3, count=2))
    found = peers.decoding(model, layout, source)
    ids = torch.cat([source, torch.full((2, 1), layout.vocabulary.start)], dim=1)
    with torch.no_grad():
        for _ in range(layout.target_length):
            likeliest = peers.logits_of(model, ids)[:, -1:].argmax(dim=-1)
            ids = torch.cat([ids, likeliest], dim=1)
    assert torch.equal(found, ids[:, layout.source_length + 1 :])


@pytest.mark.parametrize("name", ["transformers", "x_transformers"])
def test_a_library_that_is_not_installed_is_one_line(name, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", missing)
    extra = name.replace("_", "-")
    with pytest.raises(InputError, match=rf"needs {name}, .*pip install 'lengthwise\[{extra}\]'$"):
        peers.library(name)
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert not peers.installed()
