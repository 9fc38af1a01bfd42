//! Making, converting and rearranging arrays.

use super::*;
use proptest::prelude::*;

const ALL: [DType; 7] = [
    DType::F32,
    DType::F64,
    DType::BF16,
    DType::F16,
    DType::U8,
    DType::I32,
    DType::U32,
];

#[test]
fn mistakes_name_what_was_given() {
    let error = Array::new([2, 2], vec![1_i32; 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "shape [2, 2] holds 4 elements, but 3 were given"
    );
    let error = Array::from_bytes(DType::F32, [2], &[0; 7]).unwrap_err();
    assert_eq!(error.to_string(), "f32 [2] takes 8 bytes, but 7 were given");
    let array = Array::zeros(DType::F32, [2, 3]);
    for axes in [&[0][..], &[0, 0], &[1, 2], &[0, 1, 2]] {
        let error = array.permute(axes).unwrap_err().to_string();
        assert!(
            error.ends_with("are no permutation of the 2 axes of shape [2, 3]"),
            "{error}"
        );
    }
}

#[test]
fn bytes_and_casts_keep_small_numbers() {
    for dtype in ALL {
        let array = Array::new([2, 1, 2], vec![0.0, 1.0, 7.0, 200.0])
            .unwrap()
            .cast(dtype);
        assert_eq!(array.dtype(), dtype);
        assert_eq!(array.bytes().len(), 4 * dtype.size());
        assert_eq!(array.to_f64_vec(), [0.0, 1.0, 7.0, 200.0]);
        let mut shifted = vec![0];
        shifted.extend(array.bytes());
        let back = Array::from_bytes(dtype, [2, 1, 2], &shifted[1..]).unwrap();
        assert_eq!(back, array);
        assert_eq!(Array::full(dtype, [3], 5.0).to_f64_vec(), [5.0; 3]);
    }
}

#[test]
fn integers_stop_at_their_ends() {
    let wild = Array::new([4], vec![f64::NEG_INFINITY, -1e10, f64::NAN, 1e10]).unwrap();
    assert_eq!(
        wild.cast(DType::I32).as_i32().unwrap(),
        [i32::MIN, i32::MIN, 0, i32::MAX]
    );
    assert_eq!(wild.cast(DType::U32).as_u32().unwrap(), [0, 0, 0, u32::MAX]);
    assert!(!wild.all_finite());
    assert!(!Array::scalar(1e6, DType::F16).all_finite());
    assert!(Array::scalar(1e6, DType::BF16).all_finite());
}

#[test]
fn halves_round_once() {
    let half = |x: f64| f16::narrow(x).to_f64();
    let (unit, ulp) = (1.0, 2.0_f64.powi(-10));
    assert_eq!(half(unit + ulp / 2.0), unit, "a tie goes to even");
    assert_eq!(
        half(unit + 1.5 * ulp),
        unit + 2.0 * ulp,
        "a tie goes to even"
    );
    assert_eq!(
        half(unit + ulp / 2.0 + 1e-15),
        unit + ulp,
        "just above a tie is no tie"
    );
    assert_eq!(
        half(unit + 1.5 * ulp - 1e-15),
        unit + ulp,
        "just below a tie is no tie"
    );
    assert_eq!(
        bf16::narrow(1.0 + 2.0_f64.powi(-8) + 1e-15).to_f64(),
        1.0 + 2.0_f64.powi(-7)
    );
    assert_eq!(half(65_519.999), 65_504.0, "below the tie with infinity");
    assert_eq!(half(65_520.0), f64::INFINITY);
    assert_eq!(half(-1e-300), 0.0);
    assert!(half(-1e-300).is_sign_negative());
}

fn error(near: impl Into<f64>, x: f64) -> f64 {
    (near.into() - x).abs()
}

proptest! {
    #[test]
    fn halves_are_the_nearest(x in -65_000.0..65_000.0_f64, tiny in -1e-4..1e-4_f64) {
        for x in [x, tiny] {
            let (half, brain) = (f16::narrow(x), bf16::narrow(x));
            for by in [-1, 1] {
                let other = f16::from_bits(half.to_bits().wrapping_add_signed(by)).to_f64();
                prop_assert!(half == f16::ZERO || error(half, x) <= (other - x).abs());
                let other = bf16::from_bits(brain.to_bits().wrapping_add_signed(by)).to_f64();
                prop_assert!(error(brain, x) <= (other - x).abs());
            }
        }
    }

    #[test]
    fn a_permutation_and_its_inverse_cancel(
        extents in prop::collection::vec(0_usize..4, 0..5), seed in any::<u64>(),
    ) {
        let shape = Shape::from(extents);
        let numbers: Vec<u32> = (0..shape.count() as u32).collect();
        let array = Array::new(shape.clone(), numbers).unwrap();
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|&axis| (seed ^ axis as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let there = array.permute(&axes).unwrap();
        let mut inverse = vec![0; axes.len()];
        for (i, &axis) in axes.iter().enumerate() {
            inverse[axis] = i;
            prop_assert_eq!(there.shape()[i], shape[axis]);
        }
        prop_assert_eq!(there.permute(&inverse).unwrap(), array);
    }
}

#[test]
fn permute_reorders_as_numpy_does() {
    // numpy: np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).ravel()
    let array = Array::new([2, 3, 4], (0..24).collect::<Vec<i32>>()).unwrap();
    let moved = array.permute(&[2, 0, 1]).unwrap();
    assert_eq!(moved.shape()[..], [4, 2, 3]);
    assert_eq!(moved.as_i32().unwrap()[..8], [0, 4, 8, 12, 16, 20, 1, 5]);
    assert_eq!(array.clone().reshape([6, 4]).unwrap().data(), array.data());
    assert!(array.reshape([5, 5]).is_err());
}
