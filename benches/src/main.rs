//! The program `benches`: everything is in the library.

fn main() -> std::process::ExitCode {
    benches::resident::give_back();
    gtn::cli::program(|command| benches::run(&command))
}
