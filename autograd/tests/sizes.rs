//! Sizes that no memory holds are one-line errors, wherever a shape is made.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;
use autograd::{ArraySpec, ConvOptions, Forecast, Horizon, Planned};
use kernels::Distribution;

const HUGE: usize = 1 << 33;

/// The message, which is one line.
fn refused<T>(found: Result<T>) -> String {
    let message = found.err().expect("an error").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn shapes_beyond_memory_are_refused_where_they_are_made() {
    let tape = Tape::new();
    let x = tape.input("x", F32, [1, 2, 2, 1]).unwrap();
    let beyond = "has more elements than any memory holds";
    let all = [
        tape.input("y", F32, [HUGE, HUGE]),
        tape.input("z", F32, [HUGE, 0, HUGE]),
        tape.iota(0, F32, [HUGE, HUGE]),
        tape.constant(1.0, F32, [HUGE, HUGE]).sum_all(),
        tape.constant(1.0, F32, [HUGE, HUGE]).mean_all(),
        tape.constant(1.0, F32, [HUGE, HUGE]).mean_keep(&[0, 1]),
        x.upsample(1 << 32),
        x.expand([HUGE, 2, 2, HUGE]),
        x + tape.constant(1.0, F32, [HUGE, 1, 1, HUGE]),
        x.pad(&[0, usize::MAX, 0, 0], &[0, usize::MAX, 0, 0]),
    ];
    for found in all {
        let message = refused(found);
        assert!(message.contains(beyond), "{message}");
    }
    // A constant's shape is checked where it is used.
    let most = tape.constant(1.0, F32, [2, usize::MAX, 2]);
    let all = [
        most.take(0, &[0]),
        most.argmax(0),
        tape.concat(&[most, most], 0),
        most.matmul_with(most, false, true),
    ];
    for found in all {
        let message = refused(found);
        assert!(message.contains(beyond), "{message}");
    }
    let column = tape.input("column", F32, [1 << 31, 1]).unwrap();
    let message = refused(column.matmul_with(column, false, true));
    assert!(message.contains(beyond), "{message}");
    let table = tape.input("table", F32, [2, 1 << 40]).unwrap();
    let index = tape.input("index", I32, [1 << 40]).unwrap();
    assert!(refused(table.rows(index)).contains(beyond));
    assert!(refused(index.one_hot(1 << 40, F64)).contains(beyond));
    let key = tape.input("key", U32, [4]).unwrap();
    let random = tape.random(key, 0, Distribution::Uniform, F32, [HUGE, HUGE]);
    refused(random);
}

#[test]
fn extents_that_add_up_to_more_are_refused() {
    let tape = Tape::new();
    let x = tape.input("x", F32, [1, 2, 2, 1]).unwrap();
    let w = tape.input("w", F32, [1, 1, 1, 1]).unwrap();
    refused(x.edge_pad(1, usize::MAX / 2));
    refused(x.edge_pad(1, 1 << 40));
    refused(x.reflect_pad(1, usize::MAX / 2));
    let wide = ConvOptions {
        stride: [1, 1],
        pad: [usize::MAX; 4],
    };
    refused(x.conv2d(w, wide));
    refused(x.conv2d_transposed(w, wide));
    let steps = ConvOptions {
        stride: [usize::MAX; 2],
        pad: [0; 4],
    };
    refused(x.conv2d_transposed(w, steps));
    refused(x.max_pool([1 << 33, 1 << 33], [1, 1], [0; 4]));
    refused(x.max_pool([2, 2], [1, 1], [usize::MAX; 4]));
    refused(x.max_pool(
        [usize::MAX, 1],
        [1, 1],
        [usize::MAX - 1, usize::MAX - 1, 0, 0],
    ));
    let index = tape.input("index", I32, [2]).unwrap();
    let classes = "one_hot: 16777217 classes: f32 counts to 16777216 exactly";
    assert_eq!(refused(index.one_hot((1 << 24) + 1, F32)), classes);
    refused(x.slice(&[1, 0, 0, 0], &[usize::MAX, 2, 2, 1]));
    let half = tape.input("half", F32, [1 << 63, 0]);
    refused(half);
    let third = tape.input("third", F32, [1 << 59, 0]).unwrap();
    refused(tape.concat(&[third, third, third], 0));
}

#[test]
fn an_index_into_a_table_without_rows_is_refused() {
    let tape = Tape::new();
    let empty = tape.input("empty", F32, [0, 3]).unwrap();
    let index = tape.input("index", I32, [2]).unwrap();
    let message = refused(empty.rows(index));
    assert!(message.ends_with("which has no row"), "{message}");
    let none = tape.input("none", I32, [0]).unwrap();
    assert_eq!(*empty.rows(none).unwrap().shape(), [0, 3]);
}

/// Windows that touch no pixel have no greatest one, in a plan and by plain loops alike.
#[test]
fn pooling_of_images_without_pixels_is_refused() {
    let tape = Tape::new();
    let image = tape.input("image", F32, [1, 0, 4, 1]).unwrap();
    let message = refused(image.max_pool([2, 2], [1, 1], [1, 1, 0, 0]));
    assert!(message.contains("an image of 0×4 pixels"), "{message}");
    let none = tape.input("none", F32, [0, 4, 4, 1]).unwrap();
    let pooled = none.max_pool([2, 2], [2, 2], [0; 4]).unwrap();
    assert_eq!(*pooled.shape(), [0, 2, 2, 1]);
}

#[test]
fn a_plan_of_arrays_beyond_memory_is_refused() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [1 << 59]).unwrap();
    let message = refused(Plan::new(&[x.tanh().unwrap()]));
    assert!(
        message.contains("more bytes than any memory holds"),
        "{message}"
    );
    let constant = tape.constant(1.0, F32, [HUGE, HUGE]);
    refused(Plan::new(&[constant]));
    let large = tape.input("large", F64, [1 << 45]).unwrap();
    let sum = Plan::new(&[large.tanh().unwrap().sum_all().unwrap()]).unwrap();
    assert_eq!(sum.inputs()[0].bytes(), 1 << 48);
}

#[test]
fn arrays_of_wrapping_sizes_are_refused() {
    let of = |shape: [usize; 2]| Array::new(shape, Vec::<f32>::new());
    for shape in [[1 << 32, 1 << 32], [HUGE, HUGE], [usize::MAX, 0]] {
        let message = of(shape).unwrap_err().to_string();
        assert!(
            message.contains("more elements than any memory"),
            "{message}"
        );
    }
    assert!(Array::from_bytes(F64, [1 << 61], &[]).is_err());
    let none = of([1 << 40, 0]).unwrap();
    assert_eq!(**none.permute(&[1, 0]).unwrap().shape(), [0, 1 << 40]);
    assert_eq!(ArraySpec::new("x", F64, [1 << 62]).bytes(), usize::MAX);
}

fn training(weights: usize) -> Training<'static> {
    Training::new(Optimizer::Sgd)
        .weights([ArraySpec::new("w", F64, [weights])])
        .learned([ArraySpec::new("lr", F64, [])])
        .loss(|s| s["w"].powi(2)?.sum_all())
        .outer(|s| s["w"].powi(2)?.sum_all())
}

#[test]
fn forecasts_of_any_size_add_up_or_are_refused() {
    let years = Forecast::new(&training(8), &Horizon::new(1 << 32)).unwrap();
    assert!(years.bytes > (1 << 32) * 64);
    refused(Forecast::new(&training(8), &Horizon::new((1 << 32) + 1)));
    let all = Horizon::new(usize::MAX).outer_at(|step| step == 1);
    refused(Planned::new(&training(8), &all));
    refused(Forecast::new(&training(1 << 62), &Horizon::new(2)));
    let large = Forecast::new(&training(1 << 40), &Horizon::new(1 << 32)).unwrap();
    assert_eq!(large.bytes, usize::MAX);
    let device = Device::cpu(Some(1)).unwrap();
    refused(Unroll::new(&device, &training(1 << 50), &Horizon::new(2)));
}

#[test]
fn records_of_a_value_stay_inside() {
    let device = Device::cpu(Some(1)).unwrap();
    let values = Values::new(&device, [("x", &Array::zeros(F64, [4, 2]))]).unwrap();
    let beyond = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        values.row("x", 1 << 60).bytes()
    }));
    assert!(beyond.is_err());
    assert!(
        values
            .set_row("x", 1 << 60, &Array::zeros(F64, [2]))
            .is_err()
    );
}
