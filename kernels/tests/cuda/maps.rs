//! Fused element-wise programs: random instructions over random spaces, the sums at their ends.

#[path = "../../examples/ptx/compilers.rs"]
#[allow(dead_code, reason = "the example uses all of it")]
mod compilers;

use crate::common::bytes;
use crate::common::maps::{BINARY, UNARY};
use crate::parity::{
    CPU, CUDA, cases, close, f32s, inputs, run_on, same, tolerances, with_one_nan,
};
use crate::stand_in::StandIn;
use kernels::{
    Binary, Cuda, Device, Float, Instr, Kernel, Load, Map, Operand, Precision, Program, Slot, Step,
    Store, StoreKind, Unary, View,
};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tensor::DType;

/// What becomes of an instruction: its kind, and numbers to choose operands by.
type Choice = (u8, u16, u16);
type Choices = Vec<Choice>;

const DTYPES: [DType; 6] = [
    DType::F32,
    DType::BF16,
    DType::F16,
    DType::U8,
    DType::I32,
    DType::U32,
];

/// A program of random instructions over a random space, each value used or not.
fn map(extents: &[usize], choices: &[Choice], flags: Option<Vec<bool>>) -> Map {
    let mut strides = vec![0; extents.len()];
    let mut next = 1;
    for axis in (0..extents.len()).rev() {
        strides[axis] = next;
        next *= extents[axis];
    }
    let mut map = Map {
        float: Float::F32,
        extents: extents.to_vec(),
        loads: Vec::new(),
        code: Vec::new(),
        stores: Vec::new(),
    };
    for &(kind, x, y) in choices {
        let (x, y, at) = (usize::from(x), usize::from(y), map.code.len());
        let instr = match kind % 8 {
            0 | 1 => {
                // Some axes are broadcast.
                let strides = strides.iter().enumerate();
                let strides = strides
                    .map(|(axis, &s)| if y >> axis & 1 == 1 { 0 } else { s })
                    .collect();
                let dtype = if x % 3 == 0 {
                    DTYPES[x % 6]
                } else {
                    DType::F32
                };
                map.loads.push(Load { dtype, strides });
                Instr::Load(map.loads.len() - 1)
            }
            2 => Instr::constant(f64::from(x as u32) / 1000.0 - 30.0),
            3 => Instr::Iota(x % extents.len()),
            _ if at == 0 => Instr::constant(1.5),
            4 | 5 => Instr::Unary(UNARY[x % UNARY.len()], y % at),
            6 => Instr::Binary(BINARY[x % BINARY.len()], y % at, x / 16 % at),
            _ => Instr::Select(x % at, y % at, (x + y) % at),
        };
        map.code.push(instr);
    }
    let last = map.code.len() - 1;
    for (i, value) in [last, last / 2].into_iter().enumerate() {
        let dtype = if i == 0 {
            DType::F32
        } else {
            DTYPES[choices.len() % 6]
        };
        map.stores.push(Store {
            value,
            dtype,
            kind: StoreKind::Full,
        });
    }
    if let Some(flags) = flags {
        // A sum of something tame.
        map.code.push(Instr::Unary(Unary::Tanh, last));
        map.code
            .push(Instr::Binary(Binary::Equal, last + 1, last + 1));
        map.code.push(Instr::constant(0.0));
        map.code.push(Instr::Select(last + 2, last + 1, last + 3));
        let kind = StoreKind::Sum(flags);
        map.stores.push(Store {
            value: last + 4,
            dtype: DType::F32,
            kind,
        });
    }
    map
}

fn code() -> impl Strategy<Value = Choices> {
    prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..24)
}

/// Addresses of arrays in the code of a map (`ld.global.nc.u64`) that only a map of hundreds of arrays has.
const HUNDREDS: usize = 500;

/// The code of maps is PTX that the stand-in runs. Here is seen that a device's compiler takes it, without
/// spills.
#[test]
fn the_code_of_maps_becomes_machine_code() {
    let (Some(device), Ok(ptxas)) = (StandIn::build(), compilers::ptxas()) else {
        eprintln!("skipped: no stand-in device, or no ptxas");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let settings = [("CUDA_ON_CPU_MODULES", folder.to_str().unwrap())];
    device.pass(&["maps::"], &settings);
    let modules = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    // Those of hundreds of arrays do spill, alone as well: the compiler asks for all arrays before it adds any.
    let is_map = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.contains(".entry map_") && text.matches("ld.global.nc.u64").count() < HUNDREDS
    };
    let mut maps: Vec<PathBuf> = modules.filter(is_map).collect();
    assert!(maps.len() > 100, "{}", maps.len());
    // Some of each kind, the same in every run: what is joined has several bodies, which share registers.
    let is_joined = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("map_joined");
    maps.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let (joined, alone): (Vec<_>, Vec<_>) = maps.into_iter().partition(is_joined);
    assert!(joined.len() > 20, "{}", joined.len());
    let some = |maps: Vec<PathBuf>, count: usize| {
        let step = maps.len() / count;
        maps.into_iter().rev().step_by(step.max(1)).take(count)
    };
    let maps: Vec<PathBuf> = some(joined, 20).chain(some(alone, 30)).collect();
    for machine in ["sm_80", "sm_90"] {
        for map in &maps {
            let mut command = Command::new(&ptxas);
            command.arg(format!("-arch={machine}"));
            command.args(["--warn-on-spills", "-Werror", "-o", "/dev/null"]);
            let made = command.arg(map).output().unwrap();
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "{}: {said}", map.display());
        }
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_map() {
    let small = prop::collection::vec(1..7_usize, 1..5);
    cases(150, (small, code()), |(extents, code)| {
        let kernel = Kernel::Map(map(&extents, &code, None));
        same(&kernel, &inputs(&kernel));
    });
    // Large enough for four points a thread.
    let large = prop_oneof![
        Just(vec![66_000]),
        Just(vec![257, 257]),
        Just(vec![70, 8, 120])
    ];
    cases(12, (large, code()), |(extents, code)| {
        let kernel = Kernel::Map(map(&extents, &code, None));
        same(&kernel, &inputs(&kernel));
    });
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_map_sums() {
    let small = prop::collection::vec((1..9_usize, any::<bool>()), 1..5);
    let large = prop_oneof![
        Just(vec![(40_000, true)]),
        Just(vec![(3, false), (30_000, true)]),
        Just(vec![(2000, true), (40, false)]),
        Just(vec![(300, false), (10, true)]),
        Just(vec![(9, true), (33, false), (250, true)]),
        Just(vec![(500, true), (3, false), (50, true), (2, false)]),
    ];
    let check = |(axes, code): (Vec<(usize, bool)>, Choices)| {
        let (extents, flags): (Vec<usize>, Vec<bool>) = axes.into_iter().unzip();
        let whole = map(&extents, &code, Some(flags));
        let reduce = whole.points();
        // The stores of every point: the same bits, beside a sum, too.
        let kernel = Kernel::Map(whole.clone());
        let [cpu, cuda] = [&CPU, &CUDA[0]]
            .map(|device| with_one_nan(&kernel, run_on(device, &kernel, &inputs(&kernel))));
        assert!(cpu[..2] == cuda[..2], "{kernel:?}");
        // What else the map does has no influence on the sum.
        let mut alone = whole;
        alone.stores.drain(..2);
        let alone = Kernel::Map(alone);
        // Equal numbers are the worst case: every rounding goes the same way, on the processor, too.
        close(
            &CUDA[0],
            &alone,
            &inputs(&alone),
            10.0 * tolerances(reduce)[0],
        );
        assert_eq!(
            run_on(&CUDA[0], &alone, &inputs(&alone))[0],
            cuda[2],
            "{alone:?}"
        );
    };
    cases(80, (small, code()), check);
    cases(12, (large, code()), check);
}

/// Integers pass through f64: whole numbers stay, and narrow floats are rounded once.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_map_of_integers() {
    let large: Vec<u32> = (0..15).map(|i| (1 << 30) + 1 + 2 * i).collect();
    // The fourth is nearer to the middle of two numbers of bf16 than f32 can tell.
    let odd = [
        0,
        1,
        -7,
        1_077_936_129,
        -1_077_936_129,
        16_777_217,
        2_049,
        65_519,
        65_520,
    ];
    let odd = [&odd[..], &[i32::MAX, i32::MIN, 3, 5, 9, 17]].concat();
    for (from, to, numbers) in [
        (DType::I32, DType::I32, bytes(&large)),
        (DType::U32, DType::U32, bytes(&large)),
        (DType::I32, DType::BF16, bytes(&odd)),
        (DType::I32, DType::F16, bytes(&odd)),
    ] {
        let kernel = Kernel::Map(Map {
            float: Float::F64,
            extents: vec![5, 3],
            loads: vec![Load {
                dtype: from,
                strides: vec![1, 5],
            }],
            code: vec![Instr::Load(0)],
            stores: vec![Store {
                value: 0,
                dtype: to,
                kind: StoreKind::Full,
            }],
        });
        same(&kernel, &[numbers]);
    }
}

/// The sum of that many arrays: all loaded before any is added, or one after another.
fn sum_of_many(loads: usize, points: usize, at_once: bool) -> Map {
    let mut code: Vec<Instr> = Vec::new();
    if at_once {
        code.extend((0..loads).map(Instr::Load));
        code.push(Instr::Binary(Binary::Add, 0, loads - 1));
        for i in 1..loads - 1 {
            code.push(Instr::Binary(Binary::Add, loads + i - 1, loads - 1 - i));
        }
    } else {
        code.push(Instr::Load(0));
        for load in 1..loads {
            let sum = code.len() - 1;
            code.push(Instr::Load(load));
            code.push(Instr::Binary(Binary::Add, sum, sum + 1));
        }
    }
    Map {
        float: Float::F32,
        extents: vec![points],
        loads: vec![
            Load {
                dtype: DType::F32,
                strides: vec![1]
            };
            loads
        ],
        stores: vec![Store {
            value: code.len() - 1,
            dtype: DType::F32,
            kind: StoreKind::Full,
        }],
        code,
    }
}

/// Many values at once, each in a cell of its own; and a map without points.
#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_map_extremes() {
    for points in [0, 1, 300] {
        let kernel = Kernel::Map(sum_of_many(120, points, true));
        same(&kernel, &inputs(&kernel));
    }
    let empty = Map {
        float: Float::F32,
        extents: vec![3, 0],
        loads: vec![],
        code: vec![Instr::constant(1.0)],
        stores: vec![Store {
            value: 0,
            dtype: DType::F32,
            kind: StoreKind::Sum(vec![false, true]),
        }],
    };
    same(&Kernel::Map(empty), &[]);
}

/// A program of maps that read and write `regions` pieces of one slot, as `choose` says: below a bound.
fn program(maps: Vec<Map>, regions: usize, mut choose: impl FnMut(usize) -> usize) -> Program {
    let size = |&(dtype, count): &(DType, usize)| count * dtype.size();
    let kernels: Vec<Kernel> = maps.into_iter().map(Kernel::Map).collect();
    let arrays = kernels
        .iter()
        .flat_map(|kernel| [kernel.inputs(), kernel.outputs()].concat());
    let bytes = arrays.map(|array| size(&array)).max().unwrap();
    let bytes = bytes.next_multiple_of(256);
    let steps = kernels.into_iter().map(|kernel| {
        // An own region for each output, and inputs from the others.
        let mut free: Vec<usize> = (0..regions).collect();
        let at = |region| Operand {
            slot: 0,
            offset: region * bytes,
        };
        let mut output = |_| at(free.swap_remove(choose(free.len())));
        let outputs = kernel.outputs().iter().map(&mut output).collect();
        let inputs = kernel.inputs();
        let inputs = inputs
            .iter()
            .map(|_| at(free[choose(free.len())]))
            .collect();
        Step {
            kernel,
            inputs,
            outputs,
            workspace: None,
        }
    });
    let slot = Slot {
        bytes: regions * bytes,
        writable: true,
    };
    let steps = steps.collect();
    Program::new(vec![slot], steps).unwrap()
}

/// Graphs, in which launches of maps are joined, give what launches of each map give, bit for bit: with joins
/// of the same code, then with all.
fn joined_as_alone(program: &Program) {
    let bytes = program.slots()[0].bytes;
    let start = f32s(bytes / 4, 5);
    let results = |device: &Device| {
        let buffer = device.alloc(bytes).unwrap();
        let end = |run: &dyn Fn(&[View<'_>])| {
            buffer.write(0, &start).unwrap();
            run(&[buffer.view(0, bytes)]);
            let mut end = vec![0; bytes];
            buffer.read(0, &mut end).unwrap();
            end
        };
        let run = |views: &[View<'_>]| program.run(device, views).unwrap();
        let time = |views: &[View<'_>]| assert!(!program.time(device, views).unwrap().is_empty());
        [end(&run), end(&run), end(&time)]
    };
    let [expected, ..] = results(&ALONE);
    for found in results(&JOINED) {
        assert!(expected == found, "{program:?}");
    }
}

static ALONE: LazyLock<Device> = LazyLock::new(|| cuda().without_graphs().into());
static JOINED: LazyLock<Device> = LazyLock::new(|| cuda().joins_after(1).into());

fn cuda() -> Cuda {
    Cuda::open(0, Precision::Fp32).unwrap()
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn parity_map_joined() {
    let axes = prop_oneof![
        4 => prop::collection::vec((1..9_usize, any::<bool>()), 1..4),
        1 => Just(vec![(9000, true)]),
        1 => Just(vec![(70, true), (40, false)]),
        1 => Just(vec![(2, false), (20_000, true)]),
    ];
    let sums = prop_oneof![Just(false), Just(true)];
    let code = prop::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..8);
    // A few maps, each of them several times.
    let kinds = prop::collection::vec((axes, sums, code), 3..5);
    let steps = prop::collection::vec(any::<u16>(), 6..16);
    let choices = prop::collection::vec(any::<u16>(), 64);
    cases(40, (kinds, steps, choices), |(kinds, steps, choices)| {
        let map = |step: &u16| {
            let (axes, sums, code) = &kinds[usize::from(*step) % kinds.len()];
            let (extents, flags): (Vec<usize>, Vec<bool>) = axes.iter().copied().unzip();
            map(&extents, code, sums.then_some(flags))
        };
        let mut choices = choices.into_iter().cycle();
        let choose = |below| usize::from(choices.next().unwrap()) % below;
        joined_as_alone(&program(steps.iter().map(map).collect(), 24, choose));
    });
    // Numbers in a table, side by side and in turn.
    let many = sum_of_many(520, 100, false);
    let mut next = 0;
    joined_as_alone(&program(vec![many; 4], 4, |below| {
        next += 1;
        next % below
    }));
}
