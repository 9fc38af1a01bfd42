//! The front door stays small: the programs that documents compare with other engines, counted as rustfmt lays them out.

/// The lines of a program: from its first `use` to the end of the function, without blank ones.
fn lines(source: &str, function: &str) -> usize {
    let all: Vec<&str> = source.lines().collect();
    let position = |text: &str| all.iter().position(|line| line.starts_with(text));
    let (begin, function) = (position("use "), position(function));
    let (begin, function) = (begin.expect("a use"), function.expect("the function"));
    let end = all[function..].iter().position(|line| *line == "}");
    let program = &all[begin..=function + end.expect("its end")];
    program
        .iter()
        .filter(|line| !line.trim().is_empty())
        .count()
}

#[test]
fn programs_are_as_short_as_promised() {
    let hvp = include_str!("../examples/hessian_vector_product.rs");
    let rates = include_str!("../examples/learn_learning_rate.rs");
    let maml = include_str!("../examples/maml_sine.rs");
    let pixels = include_str!("../examples/distill_pixels.rs");
    for (source, function, most) in [
        (hvp, "fn product(", 10),
        (rates, "fn learn(", 18),
        (maml, "fn learn(", 25),
        (pixels, "fn distil(", 25),
    ] {
        let lines = lines(source, function);
        assert!(lines <= most, "{function}: {lines} lines of {most}");
    }
}

#[test]
fn the_readme_shows_the_program_that_runs() {
    let program = include_str!("../examples/learn_learning_rate.rs");
    let (begin, end) = (program.find("use "), program.find("\n\nfn main"));
    let program = &program[begin.expect("its beginning")..end.expect("its end")];
    assert!(include_str!("../../README.md").contains(program));
}
