//! The program `gtn`: everything is in the library.

fn main() -> std::process::ExitCode {
    gtn::cli::main()
}
