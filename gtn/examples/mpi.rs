//! The program `gtn` for several ranks, under a name of its own: so tests build it beside the one without MPI.

fn main() -> std::process::ExitCode {
    gtn::cli::main()
}
