//! The program `gtn` with MPI. It has a name of its own, so that tests can build it beside the one without.

fn main() -> std::process::ExitCode {
    gtn::cli::main()
}
