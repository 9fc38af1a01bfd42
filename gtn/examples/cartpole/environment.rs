//! `CartPole`: a pole on a cart, to be kept upright by pushes from the left or the right (Barto, Sutton and Anderson 1983), with
//! the constants of `CartPole-v1` (Brockman et al. 2016, arXiv 1606.01540).

use rand::{Rng, RngExt};

/// Position of the cart (m) and its velocity (m/s), angle of the pole from upright (rad) and its velocity (rad/s).
pub(crate) type State = [f64; 4];

/// m/s²
const GRAVITY: f64 = 9.8;
/// kg
const CART: f64 = 1.0;
/// kg
const POLE: f64 = 0.1;
/// Half of the pole's length, m.
const HALF_LENGTH: f64 = 0.5;
/// N
const FORCE: f64 = 10.0;
/// Seconds of a step.
const TAU: f64 = 0.02;
/// The cart may not go further from the middle, m.
const FARTHEST: f64 = 2.4;
/// The pole may not lean further: 12 degrees, rad.
const STEEPEST: f64 = 12.0 * std::f64::consts::PI / 180.0;
/// An episode begins with every number of the state uniform between this and its negative.
const START: f64 = 0.05;

/// After so many steps an episode of `CartPole-v1` is cut.
pub(crate) const LIMIT: usize = 500;

/// Draws how an episode begins.
pub(crate) fn start(rng: &mut impl Rng) -> State {
    std::array::from_fn(|_| rng.random_range(-START..=START))
}

/// The state after a step (explicit Euler) with a push to the right, or to the left.
pub(crate) fn moved([x, speed, angle, turn]: State, right: bool) -> State {
    let (sin, cos) = angle.sin_cos();
    let force = if right { FORCE } else { -FORCE };
    let both = CART + POLE;
    // The cart's acceleration without the pole's angular acceleration, whose share is subtracted below.
    let push = (force + POLE * HALF_LENGTH * turn * turn * sin) / both;
    let inertia = HALF_LENGTH * (4.0 / 3.0 - POLE * cos * cos / both);
    let turning = (GRAVITY * sin - cos * push) / inertia;
    let pushing = push - POLE * HALF_LENGTH * turning * cos / both;
    [
        x + TAU * speed,
        speed + TAU * pushing,
        angle + TAU * turn,
        turn + TAU * turning,
    ]
}

/// Whether the cart has left its track or the pole leans too far: the end of an episode.
pub(crate) fn failed([x, _, angle, _]: State) -> bool {
    !(x.abs() <= FARTHEST && angle.abs() <= STEEPEST)
}

/// What a policy sees of a state: its numbers, each divided by about the greatest value it takes.
pub(crate) fn observed([x, speed, angle, turn]: State) -> [f32; 4] {
    [x / FARTHEST, speed / 2.0, angle / STEEPEST, turn / 2.0].map(|number| number as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: State, expected: State) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// Upright and at rest, by hand: push = 10/1.1 = 100/11; inertia = ½(4/3 − 1/11) = 41/66, so θ̈ = −100/11 · 66/41 =
    /// −600/41; ẍ = 100/11 + 0.05/1.1 · 600/41 = 400/41.
    #[test]
    fn a_push_from_rest_is_that_by_hand() {
        let after = moved([0.0; 4], true);
        assert_near(after, [0.0, 0.02 * 400.0 / 41.0, 0.0, -0.02 * 600.0 / 41.0]);
        assert_near(moved([0.0; 4], false), after.map(|number| -number));
        // Positions move by the velocities before the step, not by those after it.
        let second = moved(after, false);
        assert!((second[0] - 0.02 * after[1]).abs() < 1e-15);
        assert!((second[2] - 0.02 * after[3]).abs() < 1e-15);
    }

    /// A turning pole that lies down (sin = 1, cos = 0), by hand: push = (10 + 0.05·4)/1.1 = 102/11; inertia = 2/3, so
    /// θ̈ = 9.8 · 3/2 = 14.7; ẍ = push, as cos = 0.
    #[test]
    fn a_lying_pole_is_that_by_hand() {
        let lying = std::f64::consts::FRAC_PI_2;
        let after = moved([1.0, -0.5, lying, 2.0], true);
        assert_near(
            after,
            [
                0.99,
                -0.5 + 0.02 * 102.0 / 11.0,
                lying + 0.04,
                2.0 + 0.02 * 14.7,
            ],
        );
    }

    #[test]
    fn an_episode_ends_beyond_the_limits() {
        assert!(!failed([2.4, 9.0, 0.2094, 9.0]) && !failed([-2.4, 0.0, -0.2094, 0.0]));
        for state in [
            [2.4001, 0.0, 0.0, 0.0],
            [-2.4001, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.2095, 0.0],
            [0.0, 0.0, -0.2095, 0.0],
            [f64::NAN, 0.0, 0.0, 0.0],
        ] {
            assert!(failed(state), "{state:?}");
        }
    }
}
