"""The emulator finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.cuda import emulated


@pytest.fixture(scope="module")
def faulty():
    return emulated.load(emulated.build_faulty(), "faulty")


def in_all_orders(faulty, fault):
    found = []
    for order in emulated.ORDERS.values():
        faulty.set_order(*order)
        found.append(faulty.run(fault))
    faulty.set_order(0, 0)
    return found


def test_a_sound_kernel_is_the_same_in_every_order(faulty):
    assert in_all_orders(faulty, "none") == [[i + (i + 1) % 64 for i in range(64)]] * len(emulated.ORDERS)


def test_blocks_that_meet_see_what_all_wrote(faulty):
    blocks = 2 * 2  # as many as two multiprocessors hold, of nine
    first = 32 * blocks
    assert in_all_orders(faulty, "none together") == [[first * (first + 1)] * first] * len(emulated.ORDERS)


@pytest.mark.parametrize("fault", ["race", "race of blocks", "race of blocks together"])
def test_races_show_in_another_order(faulty, fault):
    found = in_all_orders(faulty, fault)
    assert any(other != found[0] for other in found[1:])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("left early", "leave_early, block 0: some threads have left, others wait"),
        ("apart", "wait_apart, block 0: threads wait in different places"),
        ("waits apart", "meet_twice, block 0: a block waits for others, which need not run at the same time"),
        ("waits forever", "wait_for_nobody, block 1: every block waits for another"),
        ("divided warp", "divide_warp, block 0: a warp waits with some of its lanes, not at one place"),
    ],
)
def test_divergence_is_an_error(faulty, fault, text):
    with pytest.raises(RuntimeError, match=text):
        faulty.run(fault)
    assert faulty.run("none")  # and does not hold up the next


@pytest.mark.parametrize("fault", ["unwritten shared", "unwritten shared of a template"])
def test_shared_memory_is_poisoned(faulty, fault):
    faulty.run("race")
    assert set(faulty.run(fault)) == {int.from_bytes(b"\xcb" * 4, "little", signed=True)}
