"""Which slice pictures show: the same anatomy, the same way up, however the voxels are stored."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from sure_fast.engine import slices


@pytest.fixture
def volume():
    """R to L, front to back, head to feet told apart by the values of an oblong block."""
    label = np.zeros((12, 10, 8), np.uint8)
    label[2:9, 3:6, 1:4] = 1
    label[1:10, 3:6, 3] = 1
    label[7:10, 3:6, 3] = 2
    return label


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ASR", "IRP"])
def test_the_picture_does_not_depend_on_the_order_of_the_voxels(volume, codes):
    spacing = (1.0, 1.0, 3.0)
    wanted = slices.view_of(volume, volume, spacing, "RAS")
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    stored = nibabel.orientations.apply_orientation(volume, turn).astype(np.uint8)
    order = [int(np.flatnonzero(turn[:, 0] == k)[0]) for k in range(3)]
    view = slices.view_of(stored, stored, [spacing[k] for k in order], codes)
    assert view.letters == wanted.letters == ("R", "L", "A", "P")
    assert np.array_equal(view.cut(stored), wanted.cut(volume))
    assert "axial" in view.title


def test_a_patients_right_is_on_the_left_and_the_front_is_up(volume):
    plane = slices.view_of(volume, volume, (1.0, 1.0, 3.0), "RAS").cut(volume)
    rows, columns = np.nonzero(plane == 2)
    assert columns.max() < (volume.shape[0] - 1) / 2  # at R, the high end of the first axis
    assert rows.min() > (volume.shape[1] - 1) / 2 - 2  # the block lies behind the middle


@pytest.mark.parametrize("shape", [(1, 6, 7), (6, 1, 7), (6, 7, 1)])
def test_a_single_slice_is_shown_whole(shape):
    label = np.zeros(shape, np.uint8)
    view = slices.view_of(label, label, (1.0, 1.0, 1.0))
    assert view.axis == shape.index(1)
    assert min(view.cut(label).shape) == 6


def test_without_foreground_the_most_uncertain_slice_is_shown():
    label, uncertainty = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6))
    uncertainty[:, :, 4] = 0.5
    assert slices.view_of(label, uncertainty, (1.0, 1.0, 1.0), "RAS").index == 4


def test_pictures_are_not_cut():
    view = slices.view_of(np.zeros((4, 5)), np.zeros((4, 5)), (2.0, 1.0))
    assert (view.axis, view.aspect, view.cut(np.ones((4, 5))).shape) == (None, 2.0, (4, 5))
