//! What a theme is on disk: a folder beside the maker with drawings of all states, and which drawing serves which size.
//! It reads folders, never the drawings themselves.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The states' names as they stand in addresses and in file names.
pub const STATES: [&str; 8] = ["available", "chat", "away", "xa", "dnd", "offline", "forbidden", "unknown"];
pub const PNG_SIZES_PX: [u32; 8] = [16, 24, 32, 48, 64, 128, 256, 512];
/// GIF has no half-transparent edge, which shows more the larger it gets; it is there for old pages with small icons.
pub const GIF_SIZES_PX: [u32; 3] = [16, 24, 32];
/// Up to here the drawing made for few pixels is used.
const SMALL_MAX_PX: u32 = 24;

pub struct Theme {
    pub name: String,
    pub folder: PathBuf,
}

impl Theme {
    /// The drawing for a size: one made for exactly that many pixels if there is one, else the small or the large one.
    pub fn drawing(&self, state: &str, size_px: u32) -> PathBuf {
        let exact = self.folder.join(format!("{state}-{size_px}.svg"));
        if exact.exists() {
            return exact;
        }
        let suffix = if size_px <= SMALL_MAX_PX { "-small" } else { "" };
        self.folder.join(format!("{state}{suffix}.svg"))
    }
}

/// The folders of `images` that hold drawings, by name. A folder of finished pictures alone is a theme too, but there is
/// nothing to make in it; the maker's own folder has no drawings.
pub fn find(images: &Path) -> Result<Vec<Theme>, Error> {
    let mut themes = Vec::new();
    for folder in files(images)?.into_iter().filter(|path| path.is_dir()) {
        if files(&folder)?.iter().any(|path| path.extension().is_some_and(|ending| ending == "svg")) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            themes.push(Theme { name, folder });
        }
    }
    Ok(themes)
}

/// What lies in a folder, sorted: the order of a directory differs between machines.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::Io(folder.to_owned(), error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_its_drawing() {
        let folder = std::env::temp_dir().join(format!("icon-maker-{}-sizes", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("away-48.svg"), "").unwrap();
        let theme = Theme { name: "any".to_owned(), folder: folder.clone() };
        let cases =
            [(16, "away-small.svg"), (24, "away-small.svg"), (32, "away.svg"), (48, "away-48.svg"), (64, "away.svg")];
        for (size_px, expected) in cases {
            assert_eq!(theme.drawing("away", size_px), folder.join(expected), "{size_px}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
