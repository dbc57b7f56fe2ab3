from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from rine_cache.errors import CacheMismatchError, ConfigError, HeadError
from rine_cache.heads.head import (
    FeatureIdentity,
    Head,
    HeadCard,
    build_network,
    load_head,
    load_heads,
    read_card,
    save_head,
)
from rine_cache.heads.linear import LinearHead
from rine_cache.heads.neighbours import BankSize
from rine_cache.heads.official import export_official, import_official
from rine_cache.heads.rine import RineHead
from rine_cache.passes import EncoderPasses
from rine_cache.specs.training import HeadSpec, LinearHeadSpec, LogisticHeadSpec, NeighboursHeadSpec, RineHeadSpec

DATA = Path(__file__).parent / "data"
GOLDEN = np.load(DATA / "head_golden.npz")
OFFICIAL = DATA / "model_2class_trainable.pth"
ENCODER = {"architecture": "ViT-X", "activation": "gelu", "weights_sha256": "a" * 64}
FEATURES = FeatureIdentity(
    encoder=ENCODER, tap="ln_2", compute_dtype="float32", block_count=4, token_width=6, embedding_width=5
)


def official() -> Head:
    return import_official(OFFICIAL, method="RINE", architecture="ViT-L-14-quickgelu", training_set="progan-2")


def new_head(**spec: Any) -> Head:
    head = RineHeadSpec(kind="rine", width=8, **spec)
    torch.manual_seed(0)
    return Head(HeadCard(method="m", head=head, features=FEATURES), build_network(head, FEATURES).eval())


def test_the_released_head_gives_the_authors_logits_and_z() -> None:
    head = official()
    with torch.no_grad():
        output = head.network(torch.from_numpy(GOLDEN["cls"]))
    np.testing.assert_allclose(output.logit.numpy(), GOLDEN["logit"], atol=1e-4)
    np.testing.assert_allclose(output.z.numpy(), GOLDEN["z"], atol=1e-4)
    assert head.card.head == RineHeadSpec(kind="rine", blocks="all", layers=4, width=128)


@pytest.mark.parametrize(
    ("layers", "width", "parameters"), [(4, 1024, 10_521_601), (4, 128, 283_009), (2, 1024, 6_323_201)]
)
def test_parameter_counts_are_the_papers(layers: int, width: int, parameters: int) -> None:
    network = RineHead(24, 1024, layers=layers, width=width, tie=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_head_equals_its_equations_written_out() -> None:
    network = new_head(layers=3).network
    assert isinstance(network, RineHead)
    tokens = torch.randn(2, 4, 6)
    state = {name: value.double() for name, value in network.state_dict().items()}

    def layers(value: torch.Tensor, name: str, places: list[int]) -> torch.Tensor:
        for place in places:
            value = torch.relu(value @ state[f"{name}.{place}.weight"].T + state[f"{name}.{place}.bias"])
        return value

    projected = layers(tokens.double(), "proj1", [1, 4, 7])
    importance = torch.exp(state["alpha"]) / torch.exp(state["alpha"]).sum(1, keepdim=True)
    z = layers((importance * projected).sum(1), "proj2", [1, 4, 7])
    logit = layers(z, "head", [0, 3]) @ state["head.6.weight"].T + state["head.6.bias"]
    output = network(tokens)
    torch.testing.assert_close(output.logit, logit[:, 0].float())
    torch.testing.assert_close(output.z, z.float())


def test_without_tie_blocks_are_averaged_and_nothing_is_trained_for_it() -> None:
    network = new_head(tie=False).network
    assert isinstance(network, RineHead)
    assert "alpha" not in network.state_dict()
    tokens = torch.randn(2, 4, 6)
    z = network.proj2(network.proj1(tokens).mean(1))
    torch.testing.assert_close(network(tokens).z, z)


def test_importances_add_to_one_over_the_blocks_in_every_channel() -> None:
    network = official().network
    assert isinstance(network, RineHead)
    weights = network.importance()
    assert weights.shape == (24, 128)
    torch.testing.assert_close(weights.sum(0), torch.ones(128))


def test_a_linear_head_is_one_product_with_the_embedding() -> None:
    network = build_network(LinearHeadSpec(kind="linear"), FEATURES)
    assert isinstance(network, LinearHead)
    embedding = torch.randn(3, 5)
    output = network(embedding)
    torch.testing.assert_close(output.logit, embedding @ network.fc.weight[0] + network.fc.bias[0])
    assert output.z is None


def test_a_head_is_saved_and_read_whole_and_the_same_head_gives_the_same_bytes(tmp_path: Path) -> None:
    head = new_head(blocks=(1, 3))
    save_head(head, tmp_path / "a.safetensors")
    save_head(head, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = load_head(tmp_path / "a.safetensors")
    assert found.card == head.card
    assert found.card.blocks == (1, 3)
    tokens = torch.randn(2, 2, 6)
    torch.testing.assert_close(found.network(tokens).logit, head.network(tokens).logit)


def test_a_card_is_read_without_its_parameters_and_keeps_what_training_read(tmp_path: Path) -> None:
    head = new_head()
    card = head.card.model_copy(update={"passes": EncoderPasses(crops_read=12, caches={"a": 5})})
    save_head(head._replace(card=card), tmp_path / "a.safetensors")
    assert read_card(tmp_path / "a.safetensors") == card
    with pytest.raises(HeadError, match="cannot read the head"):
        read_card(tmp_path / "nowhere.safetensors")


def test_a_head_made_before_passes_were_counted_loads_and_states_none(tmp_path: Path) -> None:
    head = new_head()
    card = head.card.model_dump(mode="json", exclude={"passes"})
    state = head.network.state_dict()
    safetensors.torch.save_file(state, tmp_path / "old.safetensors", {"rine_cache": json.dumps(card)})
    assert load_head(tmp_path / "old.safetensors").card == head.card
    assert head.card.passes == EncoderPasses()


def test_an_imported_head_says_how_its_blocks_weigh() -> None:
    head = official()
    assert isinstance(head.network, RineHead)
    assert head.card.importance is not None
    weights = head.network.importance()  # (K, P)
    assert head.card.importance.mean == pytest.approx(weights.mean(1).tolist(), abs=1e-6)
    leads = [(weights.argmax(0) == block).double().mean().item() for block in range(24)]
    assert head.card.importance.leads == pytest.approx(leads, abs=1e-6)
    assert head.card.calibration is None


@pytest.mark.parametrize(
    ("spec", "bank"),
    [
        (LogisticHeadSpec(kind="logistic"), None),
        (LogisticHeadSpec(kind="logistic", blocks=(1, 3)), None),
        (NeighboursHeadSpec(kind="neighbours", k=2), BankSize(real=3, fake=4)),
    ],
)
def test_probes_are_saved_and_read_whole(tmp_path: Path, spec: HeadSpec, bank: BankSize | None) -> None:
    network = build_network(spec, FEATURES, bank)
    for name, value in network.state_dict().items():
        value.copy_(torch.randn(value.shape))
        assert value.dtype == (torch.float16 if name in ("real", "fake") else torch.float32)
    head = Head(HeadCard(method="m", head=spec, features=FEATURES, bank=bank), network.eval())
    save_head(head, tmp_path / "a.safetensors")
    found = load_head(tmp_path / "a.safetensors")
    assert found.card == head.card
    inputs = torch.randn(2, len(head.card.blocks), 6) if head.card.blocks else torch.randn(2, 5)
    with torch.no_grad():
        assert torch.equal(found.network(inputs).logit, network(inputs).logit)


def test_a_bank_of_another_size_than_its_card_says_is_refused(tmp_path: Path) -> None:
    spec, bank = NeighboursHeadSpec(kind="neighbours"), BankSize(real=3, fake=4)
    card = HeadCard(method="m", head=spec, features=FEATURES, bank=BankSize(real=3, fake=5))
    save_head(Head(card, build_network(spec, FEATURES, bank)), tmp_path / "a.safetensors")
    with pytest.raises(HeadError, match="do not fit its card"):
        load_head(tmp_path / "a.safetensors")


def test_a_linear_head_reads_the_mean_of_blocks_as_well_as_one_embedding() -> None:
    network = build_network(LogisticHeadSpec(kind="logistic", blocks="all"), FEATURES)
    assert isinstance(network, LinearHead)
    tokens = torch.randn(3, 4, 6)
    torch.testing.assert_close(network(tokens).logit, network.fc(tokens.sum(1) / 4)[:, 0])


def test_an_imported_head_read_no_cache() -> None:
    assert official().card.passes == EncoderPasses()


def test_ours_exported_load_in_the_authors_model_key_by_key(tmp_path: Path) -> None:
    export_official(official(), tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    theirs = torch.load(OFFICIAL, map_location="cpu", weights_only=True)
    assert list(again) == list(theirs)
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("spec", [{"tie": False}, {"blocks": "last"}])
def test_a_head_that_the_authors_code_cannot_hold_is_not_exported(tmp_path: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(HeadError, match="cannot be exported"):
        export_official(new_head(**spec), tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HeadError, match="cannot read"):
        import_official(tmp_path / "evil.pth", method="m", architecture="a", training_set="")
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(HeadError, match="not the state dict of a RINE head"):
        import_official(tmp_path / "other.pth", method="m", architecture="a", training_set="")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": {**ENCODER, "weights_sha256": "b" * 64}}, "weights_sha256"),
        ({"encoder": {**ENCODER, "activation": "quick_gelu"}}, "activation"),
        ({"tap": "block"}, "tap"),
        ({"compute_dtype": "float16"}, "compute_dtype"),
        ({"block_count": 5}, "block_count"),
        ({"token_width": 7}, "token_width"),
    ],
)
def test_features_of_another_encoder_or_tap_are_refused(change: dict[str, Any], named: str) -> None:
    head = new_head()
    head.require_features(FEATURES, "x.h5")
    with pytest.raises(CacheMismatchError, match=named):
        head.require_features(FEATURES.model_copy(update=change), "x.h5")


def test_what_an_imported_head_does_not_know_is_not_checked() -> None:
    identity = FeatureIdentity(
        encoder={"architecture": "ViT-L-14-quickgelu", "activation": "quick_gelu", "weights_sha256": "c" * 64},
        tap="ln_2",
        block_count=24,
        token_width=1024,
        embedding_width=768,
    )
    official().require_features(identity, "x.h5")
    with pytest.raises(CacheMismatchError, match="architecture"):
        official().require_features(identity.model_copy(update={"encoder": ENCODER}), "x.h5")


def test_blocks_beyond_the_encoder_are_refused() -> None:
    with pytest.raises(ConfigError, match="blocks 0 to 3"):
        new_head(blocks=(2, 9))


def test_files_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="head import"):
        load_head(OFFICIAL)
    with pytest.raises(HeadError, match="cannot read"):
        load_head(tmp_path / "none.safetensors")
    with pytest.raises(HeadError, match="no heads in"):
        load_heads(tmp_path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(HeadError, match="no card"):
        load_head(tmp_path / "plain.safetensors")
