"""Rigid motions."""

import numpy as np
import pytest

from depth_pose_ros.geometry import se3

RNG = np.random.default_rng(1)
TWISTS = [*RNG.normal(0, 1, (20, 6)), np.zeros(6), np.full(6, 1e-9), np.array([1.0, 2, 3, 1e-5, 0, 0])]


@pytest.mark.parametrize("twist", TWISTS)
def test_log_undoes_exp(twist):
    T = se3.se3_exp(twist)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(se3.se3_log(T), twist, atol=1e-9)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0, -0.8)])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 1e-4, 1.0, 3.0, np.pi - 1e-7])
def test_rotation_vectors_at_small_angles_and_near_half_a_turn(axis, angle):
    w = angle * np.array(axis)
    R = se3.so3_exp(w)
    np.testing.assert_allclose(se3.so3_log(R), w, atol=1e-7 if angle > 3 else 1e-11)
    assert se3.rotation_angle(R) == pytest.approx(angle, abs=1e-9)


def test_quaternions_go_both_ways_and_are_not_negative_in_w():
    for w in RNG.normal(0, 2, (50, 3)):
        R = se3.so3_exp(w)
        q = se3.quaternion_from_matrix(R)
        assert q[3] >= 0
        np.testing.assert_allclose(se3.matrix_from_quaternion(q), R, atol=1e-12)
    quarter = se3.quaternion_from_matrix(se3.so3_exp(np.array([0, 0, np.pi / 2])))
    np.testing.assert_allclose(quarter, [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-15)


def test_inverse_and_adjoint():
    T, x = se3.se3_exp(TWISTS[0]), TWISTS[1] * 1e-3
    np.testing.assert_allclose(se3.inverse(T) @ T, np.eye(4), atol=1e-14)
    moved = T @ se3.se3_exp(x) @ se3.inverse(T)
    np.testing.assert_allclose(se3.se3_exp(se3.adjoint(T) @ x), moved, atol=1e-12)


def test_orthonormal_is_the_nearest_rotation():
    R = se3.so3_exp(np.array([0.3, -0.2, 0.9]))
    nearest = se3.orthonormal(R + RNG.normal(0, 1e-4, (3, 3)))
    assert np.linalg.det(nearest) == pytest.approx(1.0)
    assert se3.rotation_angle(nearest.T @ R) < 3e-4
