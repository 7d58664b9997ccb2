//! The admin's own pictures (`[images] directory`): files named by state, like `away.png`, read once and checked, so
//! that nothing later can fail on them. States without a file keep the built-in icon.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::ImageError;

use super::picture::Format;
use super::pixels;
use crate::presence::State;

/// The most one file may have.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;

/// The pictures of one folder.
#[derive(Debug, Default)]
pub struct Folder {
    pictures: Vec<(State, Picture)>,
    drawings: Vec<(State, Vec<u8>)>,
}

/// One file with pixels in it. It was decoded once.
#[derive(Debug)]
pub struct Picture {
    pub format: Format,
    pub bytes: Vec<u8>,
    /// Its longer side.
    pub side_px: u32,
}

impl Folder {
    /// Reads every `STATE.png`, `.gif`, `.webp` and `.svg` there is; all that is wrong is told at once.
    pub fn load(directory: &Path) -> Result<Folder, Vec<Error>> {
        let mut folder = Folder::default();
        if let Err(problem) = fs::read_dir(directory) {
            return Err(vec![Error { path: directory.to_owned(), problem: Problem::Read(problem) }]);
        }
        let mut errors = Vec::new();
        for state in State::ALL {
            for (format, ending) in Format::ALL.into_iter().zip(Format::NAMES) {
                let path = directory.join(format!("{}.{ending}", state.name()));
                if let Err(problem) = folder.take(state, format, &path) {
                    errors.push(Error { path, problem });
                }
            }
        }
        if errors.is_empty() { Ok(folder) } else { Err(errors) }
    }

    /// The file with pixels for a state: of this format if there is one, else of any.
    pub fn picture(&self, state: State, format: Format) -> Option<&Picture> {
        let all = || self.pictures.iter().filter(|(known, _)| *known == state).map(|(_, picture)| picture);
        all().find(|picture| picture.format == format).or_else(|| all().next())
    }

    /// The SVG for a state.
    pub fn drawing(&self, state: State) -> Option<&[u8]> {
        self.drawings.iter().find(|(known, _)| *known == state).map(|(_, bytes)| bytes.as_slice())
    }

    fn take(&mut self, state: State, format: Format, path: &Path) -> Result<(), Problem> {
        let Some(bytes) = read(path)? else { return Ok(()) };
        if format == Format::Svg {
            let is_svg = str::from_utf8(&bytes).is_ok_and(|text| text.contains("<svg"));
            self.drawings.push((state, is_svg.then_some(bytes).ok_or(Problem::NotSvg)?));
            return Ok(());
        }
        let (width, height) = pixels::decode(&bytes, format).map_err(Problem::Picture)?.dimensions();
        self.pictures.push((state, Picture { format, bytes, side_px: width.max(height) }));
        Ok(())
    }
}

/// The bytes of a file, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Problem::Read(error)),
    };
    // Opening a pipe would wait for whoever writes to it.
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Problem::Read)?;
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Problem::Read)?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(Problem::TooLong);
    }
    Ok(Some(bytes))
}

/// A file that cannot be shown, for the admin to read.
#[derive(Debug)]
pub struct Error {
    pub path: PathBuf,
    pub problem: Problem,
}

#[derive(Debug)]
pub enum Problem {
    Read(io::Error),
    NotAFile,
    TooLong,
    /// Not of the format its ending says, broken, or too large.
    Picture(ImageError),
    NotSvg,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.problem {
            Problem::Read(error) => write!(f, "{error}"),
            Problem::NotAFile => f.write_str("not a file"),
            Problem::TooLong => write!(f, "must be at most {FILE_MAX_BYTES} bytes"),
            Problem::Picture(error) => {
                write!(f, "must be a picture of at most {0} x {0} pixels: {error}", pixels::SIDE_MAX_PX)
            }
            Problem::NotSvg => f.write_str("must be SVG in UTF-8"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;
    use crate::render::builtin::Drawing;
    use crate::render::picture::Icons;

    fn square(side_px: u32, format: Format) -> Vec<u8> {
        let image = RgbaImage::from_pixel(side_px, side_px, Rgba([1, 2, 3, 255]));
        pixels::encode(image, format).expect("memory takes everything")
    }

    fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<Folder, Vec<String>>) {
        let directory = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).expect("it is ours");
        }
        let loaded = Folder::load(directory.path());
        (directory, loaded.map_err(|errors| errors.iter().map(|error| format!("{:?}", error.problem)).collect()))
    }

    #[test]
    fn own_pictures_win_and_others_stay() {
        let (gif, svg) = (square(24, Format::Gif), b"<?xml version='1.0'?><svg/>".to_vec());
        let (_directory, loaded) = folder(&[("away.gif", &gif), ("away.svg", &svg), ("readme.txt", b"x")]);
        let icons = Icons::new(loaded.expect("all are good"));
        assert_eq!(icons.picture(State::Away, Format::Gif, 24).bytes, gif);
        assert_eq!(icons.picture(State::Away, Format::Svg, 24).bytes, svg);
        for (format, size_px) in [(Format::Png, 24), (Format::Png, 16), (Format::Gif, 16), (Format::WebP, 32)] {
            let own =
                pixels::decode(&icons.picture(State::Away, format, size_px).bytes, format).expect("it is a picture");
            assert_eq!((own.width(), own.get_pixel(3, 3)), (size_px.into(), &Rgba([1, 2, 3, 255])));
        }
        let builtin = Drawing::of(State::Xa);
        assert_eq!(Some(&icons.picture(State::Xa, Format::Gif, 24).bytes[..]), builtin.exact(Format::Gif, 24));
        assert_eq!(icons.picture(State::Xa, Format::Svg, 24).bytes, builtin.svg(24).as_bytes());
    }

    #[test]
    fn the_format_asked_for_is_taken_where_there_are_several() {
        let (png, webp) = (square(16, Format::Png), square(16, Format::WebP));
        let (_directory, loaded) = folder(&[("dnd.png", &png), ("dnd.webp", &webp)]);
        let icons = Icons::new(loaded.expect("all are good"));
        assert_eq!(icons.picture(State::Dnd, Format::Png, 16).bytes, png);
        assert_eq!(icons.picture(State::Dnd, Format::WebP, 16).bytes, webp);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let (directory, loaded) = folder(&[
            ("available.png", b"GIF89a"),
            ("away.svg", b"<svg>\xff"),
            ("dnd.svg", b"no drawing"),
            ("xa.gif", &vec![0; FILE_MAX_BYTES + 1]),
            ("chat.png", &square(pixels::SIDE_MAX_PX + 1, Format::Png)),
            ("offline.png", b""),
        ]);
        let problems = loaded.expect_err("six are bad");
        assert_eq!(problems.len(), 6, "{problems:?}");
        fs::create_dir(directory.path().join("unknown.png")).expect("it is ours");
        let errors = Folder::load(directory.path()).expect_err("seven are bad");
        assert!(errors.iter().all(|error| error.to_string().contains(directory.path().to_str().expect("ASCII"))));
        assert!(matches!(errors.last().map(|error| &error.problem), Some(Problem::NotAFile)), "{errors:?}");
    }

    #[test]
    fn a_file_has_a_limit() {
        let mut svg = b"<svg>".to_vec();
        svg.resize(FILE_MAX_BYTES, b' ');
        assert!(folder(&[("away.svg", &svg)]).1.is_ok());
        svg.push(b' ');
        assert_eq!(folder(&[("away.svg", &svg)]).1.map(drop), Err(vec!["TooLong".to_owned()]));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let errors = Folder::load(&directory.path().join("none")).expect_err("it is not there");
        assert!(matches!(errors[..], [Error { problem: Problem::Read(_), .. }]), "{errors:?}");
    }
}
