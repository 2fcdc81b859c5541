"""Two files, one pair; whatever else a file holds is told, and nothing in it runs."""

import contextlib
import json
import os
import stat

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from aae.config import LatentConfig, NetworkConfig
from aae.flow import round_to_half
from aae.keys import UNUSED, KeyFileError, keeps_private, load_key, save_pair
from aae.locks import MAGIC, LockError, lock, unlock
from aae.masking import mask, straighten
from aae.networks import Autoencoder

NETWORK = NetworkConfig(widths=(2, 2, 2), normalise_latent=True, couplings=2, branch=0.5)


@pytest.fixture
def pair(tmp_path):
    nets = Autoencoder(LatentConfig(gaussian=3, categorical=2), NETWORK)
    return tmp_path, nets, save_pair(tmp_path, nets, NETWORK)


def test_both_halves_come_back_and_carry_the_same_identity(pair):
    folder, nets, identity = pair
    encoder, decoder = (load_key(folder / f"{part}.safetensors", part) for part in ("encoder", "decoder"))
    assert encoder.pair == decoder.pair == identity
    assert encoder.latent == nets.latent
    assert encoder.network == NETWORK
    for key, module in ((encoder, nets.encoder), (decoder, nets.decoder)):
        saved, loaded = module.state_dict(), key.module.state_dict()
        assert {name.rpartition(".")[2] for name in saved.keys() - loaded.keys()} == {UNUSED[key.part]}
        assert all(torch.equal(saved[name], loaded[name]) for name in loaded)
    assert not encoder.module.training


def test_whoever_has_the_encoders_file_undoes_its_flow(tmp_path):
    torch.manual_seed(0)
    nets = Autoencoder(LatentConfig(gaussian=6, categorical=2), NETWORK).eval()
    for coupling in nets.encoder.flow.couplings:
        torch.nn.init.normal_(coupling.layers[-1].weight, std=0.3)
    nets.encoder.flow.whitening.set_statistics(torch.ones(6), torch.diag(torch.arange(1.0, 7.0)), floor=0.0)
    save_pair(tmp_path, nets, NETWORK)
    encoder = load_key(tmp_path / "encoder.safetensors", "encoder").module
    images = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8).numpy()
    straight = straighten(encoder, mask(encoder, images))
    bent = mask(encoder, images)
    encoder.flow = torch.nn.Identity()
    assert straight == pytest.approx(mask(encoder, images), abs=1e-4)
    assert bent != pytest.approx(mask(encoder, images), abs=1e-2)


def test_weights_of_finished_training_take_half_the_room_and_come_back_exactly(tmp_path):
    network = NetworkConfig(normalise_latent=True, couplings=2)
    nets = Autoencoder(LatentConfig(gaussian=100, categorical=10), network)
    with torch.no_grad():
        nets.decoder.layers[-1].weight[0, 0, 0, 0] = 70_000.0  # beyond half precision: stays as it is
    save_pair(tmp_path / "before", nets, network)
    for part in (nets.encoder, nets.decoder):
        round_to_half(part)
    save_pair(tmp_path / "after", nets, network)
    for part in ("encoder", "decoder"):
        before, after = (tmp_path / when / f"{part}.safetensors" for when in ("before", "after"))
        ours, loaded = getattr(nets, part).state_dict(), load_key(after).module.state_dict()
        assert all(torch.equal(ours[name], loaded[name]) for name in loaded)
        assert after.stat().st_size < 0.7 * before.stat().st_size
    assert 70_000.0 in loaded[list(loaded)[-2]]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "gaussian_head.bias",
            torch.Tensor.half,
            r"gaussian_head\.bias holds values that are not finite or not of type",
        ),
        ("features.1.running_var", torch.neg, r"features\.1\.running_var holds negative variances"),
    ],
)
def test_what_no_training_leaves_is_refused(pair, name, change, told):
    path = pair[0] / "encoder.safetensors"
    content = path.read_bytes()
    tensors = load(content)
    tensors[name] = change(tensors[name])
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(save(tensors, metadata=json.loads(content[8 : 8 + length])["__metadata__"]))
    with pytest.raises(KeyFileError, match=told):
        load_key(path)


def test_nobody_else_may_read_them(pair):
    for part in ("encoder", "decoder"):
        assert stat.S_IMODE((pair[0] / f"{part}.safetensors").stat().st_mode) == 0o600


def test_a_folder_that_gives_all_files_one_mode_is_seen(tmp_path, monkeypatch):
    assert keeps_private(tmp_path)
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda file: os.stat_result((0o100755, *real(file)[1:])))
    assert not keeps_private(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_identity_is_random_and_not_the_weights(pair):
    folder, nets, identity = pair
    assert save_pair(folder / "again", nets, NETWORK) != identity


def test_the_other_half_is_refused(pair):
    with pytest.raises(KeyFileError, match="is the decoder of a pair: give the encoder"):
        load_key(pair[0] / "decoder.safetensors", "encoder")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(KeyFileError, match="no such file"):
        load_key(tmp_path / "encoder.safetensors")


def rewritten(path, **header):
    content = path.read_bytes()
    tensors = load(content)
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"] | header
    path.write_bytes(save(tensors, metadata={k: v for k, v in metadata.items() if v is not None}))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"part": "decoder"}, "does not fit"),
        ({"part": "key"}, "cannot be read here"),
        ({"format": "99"}, "cannot be read here"),
        ({"pair": None}, r"not an encoder or decoder of this project \(no pair\)"),
        ({"latent": '{"gaussian": 8000, "categorical": 4000}'}, "does not fit"),
        ({"latent": '{"gaussian": -1}'}, "not valid"),
        ({"latent": '{"gaussian": "3"}'}, "not valid"),
        ({"latent": "[1]"}, "not valid"),
        ({"latent": "{"}, "not valid"),
        ({"network": '{"widths": [1e9]}'}, "not valid"),
        ({"network": '{"image_size": null}'}, "not valid"),
        ({"network": '{"couplings": 1.5}'}, "not valid: a value is of another kind than its key takes"),
        ({"network": '{"image_size": 1e9}'}, "not valid: image_size = 1000000000.0: must be a whole number"),
        ({"network": '{"widths": [2.5, 2, 2]}'}, "not valid"),
    ],
)
def test_a_relabelled_file_is_refused(pair, header, told):
    path = pair[0] / "encoder.safetensors"
    rewritten(path, **header)
    with pytest.raises(KeyFileError, match=told):
        load_key(path)


def test_values_that_are_not_numbers_are_refused(pair):
    folder, nets, _ = pair
    with torch.no_grad():
        nets.encoder.gaussian_head.bias[0] = float("nan")
    save_pair(folder, nets, NETWORK)
    with pytest.raises(KeyFileError, match=r"gaussian_head\.bias holds values"):
        load_key(folder / "encoder.safetensors")


def test_dimensions_that_stand_in_both_halves_of_a_coupling_are_refused(pair):
    folder, nets, _ = pair
    nets.encoder.flow.couplings[1].shuffled[0] = nets.encoder.flow.couplings[1].shuffled[1]
    save_pair(folder, nets, NETWORK)
    with pytest.raises(KeyFileError, match=r"couplings\.1\.shuffled does not hold every dimension once"):
        load_key(folder / "encoder.safetensors")


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_told_or_loads(pair, data):
    part = data.draw(st.sampled_from(("encoder", "decoder")))
    content = bytearray((pair[0] / f"{part}.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 2500)))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    damaged = pair[0] / "damaged.safetensors"
    damaged.write_bytes(bytes(content[:end]))
    with contextlib.suppress(KeyFileError):  # and nothing else
        assert load_key(damaged).part in ("encoder", "decoder")


PHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A locked decoder, what it was before, and its pair."""
    folder = tmp_path_factory.mktemp("locked")
    identity = save_pair(folder, Autoencoder(LatentConfig(gaussian=3, categorical=2), NETWORK), NETWORK)
    path = folder / "decoder.safetensors"
    clear = path.read_bytes()
    path.write_bytes(lock(clear, PHRASE))
    return path, clear, identity


class TestLocked:
    def test_the_passphrase_opens_it(self, locked):
        path, clear, identity = locked
        key = load_key(path, "decoder", lambda: PHRASE)
        assert key.pair == identity
        assert all(torch.equal(value, key.module.state_dict()[name]) for name, value in load(clear).items())
        assert unlock(path.read_bytes(), PHRASE) == clear

    def test_nothing_of_it_can_be_read(self, locked):
        path, clear, identity = locked
        content = path.read_bytes()
        assert identity.encode() in clear
        assert identity.encode() not in content
        assert b"gaussian" not in content
        assert lock(clear, PHRASE) != content

    def test_another_passphrase_and_a_changed_byte_are_told(self, locked, tmp_path):
        path, _, _ = locked
        with pytest.raises(KeyFileError, match="is locked by a passphrase"):
            load_key(path)
        with pytest.raises(KeyFileError, match="not the right one"):
            load_key(path, "decoder", lambda: PHRASE + " ")
        content, changed = path.read_bytes(), tmp_path / "changed"
        for place in (len(MAGIC), len(MAGIC) + 20, len(content) // 2, len(content) - 1):
            changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(KeyFileError, match="or the file was changed"):
                load_key(changed, "decoder", lambda: PHRASE)
        for length in (len(MAGIC), len(MAGIC) + 10, len(MAGIC) + 30, len(content) - 1):
            changed.write_bytes(content[:length])
            with pytest.raises(KeyFileError, match="or the file was changed"):
                load_key(changed, "decoder", lambda: PHRASE)

    def test_a_short_passphrase_is_refused(self):
        with pytest.raises(LockError, match="of 5 characters: must have 12 or more"):
            lock(b"", "short")
