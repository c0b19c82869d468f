"""From flow both ways to refined matches."""

import cv2
import numpy as np
import pytest

from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.geometry import appearance, correspondences, refine
from depth_pose_ros.geometry.correspondences import Matches

H, W, STRIDE = 48, 160, 4


def flow_field(dx=0.0, dy=0.0, sigma=None):
    forward = np.zeros((H, W, 2), np.float32)
    forward[...] = dx, dy
    return FlowField(forward, -forward, sigma, STRIDE)


def texture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = sum(cv2.resize(rng.normal(0, 1, (height // s, width // s)), (width, height)) * s**0.5 for s in (2, 4, 16))
    return cv2.normalize(cv2.GaussianBlur(image, (0, 0), 1.0), None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def shifted(image, dx, dy):
    M = np.float32([[1, 0, dx], [0, 1, dy]])
    return cv2.warpAffine(image, M, image.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


# ------------------------------------------------------------------------------------------------------ visibility
def test_all_is_visible_when_nothing_moves():
    np.testing.assert_array_equal(correspondences.visibility(np.zeros((H, W, 2), np.float32)), 1.0)


def test_what_image_2_does_not_reach_is_invisible_and_a_fraction_of_a_cell_counts_as_one():
    flow_21 = np.zeros((H, W, 2), np.float32)
    flow_21[..., 0] = 10.25  # everything in image 2 came from 10.25 cells to the left: 10 columns of image 1 are gone
    seen = correspondences.visibility(flow_21)
    np.testing.assert_array_equal(seen[:, :10], 0.0)
    np.testing.assert_allclose(seen[:, 10], 0.75, atol=1e-5)
    np.testing.assert_allclose(seen[:, 11:], 1.0, atol=1e-5)


def test_an_occluded_patch_is_found():
    flow_21 = np.zeros((H, W, 2), np.float32)
    flow_21[10:20, 30:50, 0] = -20.0  # an object that moved right by 20 cells now covers what was there
    seen = correspondences.visibility(flow_21)
    np.testing.assert_array_equal(seen[10:20, 30:50], 0.0)
    assert seen.mean() > 0.9


def test_flow_to_far_outside_harms_nothing():
    flow_21 = np.full((H, W, 2), 1e7, np.float32)
    np.testing.assert_array_equal(correspondences.visibility(flow_21), 0.0)


# ------------------------------------------------------------------------------------------------ score, selection
def test_score_falls_with_disagreement_and_is_zero_beyond_three_pixels():
    flow = flow_field(6.0, 0.0)
    flow.backward[:16] += (0.5, 0.0)
    flow.backward[16:32] += (0.0, 3.1)
    scores = correspondences.score(flow)
    inner = slice(8, 150)
    np.testing.assert_allclose(scores[2:14, inner], 1 / (0.1 + 0.25), rtol=1e-3)
    np.testing.assert_array_equal(scores[18:30, inner], 0.0)
    np.testing.assert_allclose(scores[34:46, inner], 1 / 0.1, rtol=1e-3)
    np.testing.assert_array_equal(scores[:, -1], 0.0)  # 6 px to the right of the last cell is outside


def test_long_flow_may_disagree_by_five_percent():
    flow = flow_field(80.0, 0.0)
    flow.backward[...] += (3.9, 0.0)
    assert correspondences.score(flow)[20, 40] > 0
    flow.backward[...] += (0.2, 0.0)
    assert correspondences.score(flow)[20, 40] == 0


def test_sigma_lowers_the_score():
    sigma = np.full((H, W), 0.4, np.float32)
    np.testing.assert_allclose(correspondences.score(flow_field(sigma=sigma)), 1 / 0.5, rtol=1e-5)


def test_flow_that_is_not_finite_gives_no_match():
    flow = flow_field()
    flow.forward[5, 7] = np.nan
    flow.backward[20, 30] = np.inf
    with np.errstate(all="raise"):
        scores = correspondences.score(flow)
    assert scores[5, 7] == 0 and scores[20, 30] == 0 and np.isfinite(scores).all()
    flow.forward[...] = np.nan
    assert len(correspondences.select(flow, 1000)) == 0


@pytest.mark.parametrize("count", [100, 1000, 2000])
def test_selection_is_spread_over_the_image_although_one_corner_scores_best(count):
    flow = flow_field(3.0, 1.0)
    rows, columns = np.mgrid[:H, :W]
    flow.backward[..., 1] += 0.002 * (rows + columns)
    matches = correspondences.select(flow, count)
    assert 0.8 * count <= len(matches) <= count
    np.testing.assert_allclose(matches.points_2 - matches.points_1, [[3.0, 1.0]] * len(matches), atol=1e-5)
    quarters, _, _ = np.histogram2d(*matches.points_1.T, bins=2, range=[[0, W * STRIDE], [0, H * STRIDE]])
    assert quarters.min() > 0.14 * len(matches)


def test_selection_is_the_same_each_time_and_lies_on_cell_centres():
    flow = flow_field(0.3, -0.2)
    first, second = correspondences.select(flow, 300), correspondences.select(flow, 300)
    np.testing.assert_array_equal(first.points_1, second.points_1)
    assert len(first) == 300
    np.testing.assert_array_equal((first.points_1 - 1.5) % STRIDE, 0.0)


def test_resized_matches_obey_the_half_pixel_rule():
    corner = np.array([[-0.5, -0.5], [639.5, 191.5]], np.float32)  # the outer corners of the image
    big = Matches(corner, corner, np.ones(2, np.float32)).resized(1226 / 640, 370 / 192)
    np.testing.assert_allclose(big.points_1, [[-0.5, -0.5], [1225.5, 369.5]], rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ refinement
def test_refinement_is_sub_pixel_and_says_whom_to_trust():
    rng = np.random.default_rng(0)
    gray_1 = texture(240, 480)
    gray_2 = shifted(gray_1, 2.3, -1.7)
    gray_2[:, 240:] = np.clip(gray_2[:, 240:] + rng.normal(0, 15, (240, 240)), 0, 255)  # the right half is noisy
    points_1 = rng.uniform((20, 20), (460, 220), (400, 2)).astype(np.float32)
    rough = points_1 + (2.3, -1.7) + rng.normal(0, 0.4, (400, 2))
    matches = Matches(points_1, rough.astype(np.float32), np.full(400, 2.0, np.float32))
    refined = refine.refine(gray_1, gray_2, matches)
    error = np.linalg.norm(refined.points_2 - points_1 - (2.3, -1.7), axis=1)
    left = points_1[:, 0] < 230
    assert np.median(error[left]) < 0.1 < np.median(error[~left]) < 0.4
    assert np.median(refined.scores[left]) > 2 * np.median(refined.scores[~left])


def test_what_cannot_be_refined_keeps_the_flow_and_loses_score():
    gray_1 = texture(240, 480)
    gray_2 = shifted(gray_1, 2.3, -1.7)
    gray_1[:, 240:] = gray_2[:, 240:] = 90  # no texture on the right
    points_1 = np.float32([[100, 100], [360, 120]])
    points_2 = points_1 + np.float32([[2, -2], [2, -2]])
    refined = refine.refine(gray_1, gray_2, Matches(points_1, points_2, np.full(2, 5.0, np.float32)))
    assert np.linalg.norm(refined.points_2[0] - (102.3, 98.3)) < 0.1
    np.testing.assert_array_equal(refined.points_2[1], points_2[1])
    assert refined.scores[1] == pytest.approx(1 / 0.7) and refined.scores[0] > 5.0


def test_refining_nothing_gives_nothing():
    assert len(refine.refine(texture(64, 64), texture(64, 64), Matches.empty())) == 0


def test_contrast_tells_a_lens_cap_from_a_picture():
    assert appearance.contrast(np.full((100, 200), 7, np.uint8)) < appearance.MIN_CONTRAST
    assert refine.contrast(texture(240, 480)) > 10
