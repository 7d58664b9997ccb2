//! Renders every icon theme beside this crate from its SVG drawings to PNG and GIF, or with `--check` only compares.
//!
//! This file holds the command line, the files and the verdict; `theme` knows which drawing serves which size, `draw`
//! turns a drawing into pixels and `encode` pixels into bytes. The same drawings give the same bytes every time: no clock,
//! no font, no chance, and the libraries are fixed by `Cargo.lock`.

mod draw;
mod encode;
mod theme;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

use theme::Theme;

const HELP: &str = "\
Renders the icon themes (images/*/STATE.svg) to PNG and GIF beside their drawings.

Usage: webpresence-icon-maker [--check]

  --check   write nothing; exit 1 and name the files that are not what would be made
";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mode = match args.as_slice() {
        [] => Mode::Write,
        [only] if only == "--check" => Mode::Check,
        [only] if only == "--help" || only == "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(images_folder(), mode) {
        Ok(stale) => {
            stale.iter().for_each(|file| eprintln!("{file}"));
            if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("webpresence-icon-maker: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Write,
    Check,
}

/// Why no icons were made; names the file.
#[derive(Debug)]
enum Error {
    Io(PathBuf, io::Error),
    Missing(PathBuf),
    Drawing(PathBuf, draw::Error),
    Encoding(PathBuf, encode::Error),
    NoTheme(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(path, error) => write!(f, "{}: {error}", shown(path)),
            Error::Missing(path) => write!(f, "{}: missing; a theme draws all eight states", shown(path)),
            Error::Drawing(path, error) => write!(f, "{}: {error}", shown(path)),
            Error::Encoding(path, error) => write!(f, "{}: {error}", shown(path)),
            Error::NoTheme(path) => write!(f, "{}: no folder with SVG drawings in it", shown(path)),
        }
    }
}

/// A picture on disk that a fresh run would change.
enum Stale {
    Missing(PathBuf),
    Differs(PathBuf),
    /// Nothing makes it: its state or size is gone. Deleting it is left to a person.
    LeftOver(PathBuf),
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stale::Missing(path) => write!(f, "{}: missing", shown(path)),
            Stale::Differs(path) => write!(f, "{}: differs from its drawing", shown(path)),
            Stale::LeftOver(path) => write!(f, "{}: left over, no drawing makes it", shown(path)),
        }
    }
}

/// The folder with the themes: the one this crate lies in, so that the working directory does not matter.
fn images_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in a folder")
}

/// As it is called from the project's root.
fn shown(path: &Path) -> path::Display<'_> {
    let root = images_folder().parent().unwrap_or(images_folder());
    path.strip_prefix(root).unwrap_or(path).display()
}

fn run(images: &Path, mode: Mode) -> Result<Vec<Stale>, Error> {
    let themes = theme::find(images)?;
    if themes.is_empty() {
        return Err(Error::NoTheme(images.to_owned()));
    }
    let mut stale = Vec::new();
    for theme in themes {
        let made = make(&theme)?;
        match mode {
            Mode::Write => write(&theme, &made)?,
            Mode::Check => stale.extend(made.iter().filter_map(compare)),
        }
        stale.extend(left_over(&theme, &made)?);
    }
    Ok(stale)
}

/// One file as it should be.
struct Picture {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Everything is made before anything is written: a broken drawing leaves the old set whole.
fn make(theme: &Theme) -> Result<Vec<Picture>, Error> {
    let mut made = Vec::new();
    for state in theme::STATES {
        for size_px in theme::PNG_SIZES_PX {
            let pixels = drawn(&theme.drawing(state, size_px), size_px)?;
            made.push(picture(theme, format!("{state}-{size_px}.png"), encode::png(&pixels))?);
            if theme::GIF_SIZES_PX.contains(&size_px) {
                made.push(picture(theme, format!("{state}-{size_px}.gif"), encode::gif(&pixels))?);
            }
        }
    }
    Ok(made)
}

fn drawn(drawing: &Path, size_px: u32) -> Result<draw::Pixels, Error> {
    let svg = fs::read(drawing).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(drawing.to_owned()),
        _ => Error::Io(drawing.to_owned(), error),
    })?;
    draw::pixels(&svg, size_px).map_err(|error| Error::Drawing(drawing.to_owned(), error))
}

fn picture(theme: &Theme, name: String, bytes: Result<Vec<u8>, encode::Error>) -> Result<Picture, Error> {
    let path = theme.folder.join(name);
    match bytes {
        Ok(bytes) => Ok(Picture { path, bytes }),
        Err(error) => Err(Error::Encoding(path, error)),
    }
}

fn write(theme: &Theme, made: &[Picture]) -> Result<(), Error> {
    for picture in made {
        fs::write(&picture.path, &picture.bytes).map_err(|error| Error::Io(picture.path.clone(), error))?;
    }
    let sum = |ending: &str| -> usize {
        made.iter().filter(|p| p.path.extension().is_some_and(|e| e == ending)).map(|p| p.bytes.len()).sum()
    };
    println!("{}: {} pictures, PNG {} bytes, GIF {} bytes", theme.name, made.len(), sum("png"), sum("gif"));
    Ok(())
}

fn compare(picture: &Picture) -> Option<Stale> {
    match fs::read(&picture.path) {
        Ok(bytes) if bytes == picture.bytes => None,
        Ok(_) => Some(Stale::Differs(picture.path.clone())),
        Err(_) => Some(Stale::Missing(picture.path.clone())),
    }
}

fn left_over(theme: &Theme, made: &[Picture]) -> Result<Vec<Stale>, Error> {
    let files = theme::files(&theme.folder)?;
    let pictures = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "png" || e == "gif"));
    Ok(pictures.filter(|path| !made.iter().any(|picture| picture.path == *path)).map(Stale::LeftOver).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder of its own for each test, under the build's temporary folder.
    fn fresh(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("icon-maker-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("plain")).unwrap();
        folder
    }

    fn draw_all_states(images: &Path) {
        let svg =
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="#080" d="M1 1h6v6H1z"/></svg>"##;
        for state in theme::STATES {
            for suffix in ["", "-small"] {
                fs::write(images.join(format!("plain/{state}{suffix}.svg")), svg).unwrap();
            }
        }
    }

    fn told(images: &Path, mode: Mode) -> Vec<String> {
        let lines = match run(images, mode) {
            Ok(stale) => stale.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        let prefix = format!("{}/", images.display());
        lines.into_iter().map(|line| line.replace(&prefix, "")).collect()
    }

    #[test]
    fn check_names_what_a_run_would_change() {
        let images = fresh("check");
        draw_all_states(&images);
        assert_eq!(told(&images, Mode::Check).len(), 8 * (8 + 3), "nothing made yet: all are missing");
        assert_eq!(told(&images, Mode::Write), [""; 0]);
        assert_eq!(told(&images, Mode::Check), [""; 0], "made twice, the bytes are the same");

        fs::remove_file(images.join("plain/chat-24.png")).unwrap();
        fs::write(images.join("plain/dnd-16.gif"), b"GIF89a").unwrap();
        fs::write(images.join("plain/gone-16.png"), b"").unwrap();
        let expected = [
            "plain/chat-24.png: missing",
            "plain/dnd-16.gif: differs from its drawing",
            "plain/gone-16.png: left over, no drawing makes it",
        ];
        assert_eq!(told(&images, Mode::Check), expected);
        fs::remove_dir_all(images).unwrap();
    }

    #[test]
    fn a_drawing_that_cannot_be_used_is_named_and_nothing_is_written() {
        let cases: [(&str, Option<&str>, &str); 4] = [
            ("xa.svg", None, "plain/xa.svg: missing; a theme draws all eight states"),
            (
                "xa-small.svg",
                Some(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><path d="M1 1h6v2H1z"/></svg>"#),
                "plain/xa-small.svg: 8 wide and 4 high; an icon is square",
            ),
            (
                "xa.svg",
                Some(
                    r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><image width="8" height="8" href="away.svg"/></svg>"#,
                ),
                "plain/xa.svg: draws nothing",
            ),
            ("xa.svg", Some("GIF89a"), "plain/xa.svg: not a drawing: "),
        ];
        for (file, svg, expected) in cases {
            let images = fresh("broken");
            draw_all_states(&images);
            let path = images.join("plain").join(file);
            match svg {
                Some(svg) => fs::write(path, svg).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let lines = told(&images, Mode::Write);
            assert_eq!(lines.len(), 1, "{file}: {lines:?}");
            assert!(lines[0].starts_with(expected), "{} should start with {expected}", lines[0]);
            assert!(!images.join("plain/available-16.png").exists(), "{expected}: written all the same");
            fs::remove_dir_all(images).unwrap();
        }
    }

    #[test]
    fn a_folder_without_drawings_is_no_theme() {
        let images = fresh("none");
        let expected = format!("{}: no folder with SVG drawings in it", images.display());
        assert_eq!(told(&images, Mode::Check), [expected]);
        fs::remove_dir_all(images).unwrap();
    }
}
