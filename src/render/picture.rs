//! `type=image`: the icon of a state in the format and size asked for. An admin's own picture wins over the built-in
//! one; what is there in the right size goes out as it is, everything else is scaled once and remembered.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::avatar::Avatars;
use super::builtin::Drawing;
use super::file::File;
use super::folder::Folder;
use super::pixels;
use crate::presence::State;

/// What a picture is encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Png,
    Gif,
    WebP,
    Svg,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Png, Format::Gif, Format::WebP, Format::Svg];
    /// As `format` and file names have them, in the order of `ALL`.
    pub const NAMES: [&str; 4] = ["png", "gif", "webp", "svg"];

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Gif => "image/gif",
            Format::WebP => "image/webp",
            Format::Svg => "image/svg+xml",
        }
    }
}

/// All icons: what was loaded, and what was made from it.
#[derive(Debug, Default)]
pub struct Icons {
    folder: Folder,
    made: Mutex<Made>,
    /// Whoever has it makes a picture.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// People's pictures, which hold up no icon.
    pub avatars: Arc<Avatars>,
}

impl Icons {
    /// The built-in icons, behind those of the folder.
    pub fn new(folder: Folder) -> Icons {
        Icons { folder, ..Icons::default() }
    }

    /// As [`picture`](Icons::picture), but computes on a thread of its own and one picture after the other: the
    /// largest take a tenth of a second, and whoever asks for all sizes there are is to hold up nobody else.
    pub async fn in_turn(self: &Arc<Icons>, state: State, format: Format, size_px: u16) -> File {
        if let Some(file) = self.known(state, format, size_px) {
            return file;
        }
        let (icons, turn) = (self.clone(), self.turn.clone().lock_owned().await);
        // The turn ends with the work, not with a visitor who goes away.
        let made = spawn_blocking(move || {
            let _turn = turn;
            icons.picture(state, format, size_px)
        });
        made.await.unwrap_or_else(|broken| resume_unwind(broken.into_panic()))
    }

    /// The built-in picture of this size or the next larger one, for those whose own is not made in time.
    pub fn ready_png(state: State, size_px: u16) -> &'static [u8] {
        Drawing::of(state).next_larger(size_px)
    }

    /// The file for a state. What is not there in this size is computed on the caller's thread the first time.
    pub fn picture(&self, state: State, format: Format, size_px: u16) -> File {
        self.known(state, format, size_px).unwrap_or_else(|| {
            let made = File::from(Bytes::from(self.make(state, format, size_px)));
            self.made().keep((state, format, size_px), made)
        })
    }

    /// What was asked for before, or is there.
    fn known(&self, state: State, format: Format, size_px: u16) -> Option<File> {
        let key = (state, format, size_px);
        let made = self.made().find(key);
        made.or_else(|| {
            let ready = File::from(self.ready(state, format, size_px)?);
            Some(self.made().keep(key, ready))
        })
    }

    /// What needs no pixel touched.
    fn ready(&self, state: State, format: Format, size_px: u16) -> Option<Bytes> {
        if format == Format::Svg {
            let own = self.folder.drawing(state).map(Bytes::copy_from_slice);
            return Some(own.unwrap_or_else(|| Drawing::of(state).svg(size_px).into()));
        }
        match self.folder.picture(state, format) {
            Some(own) => {
                let fits = own.format == format && own.side_px == u32::from(size_px);
                fits.then(|| Bytes::copy_from_slice(&own.bytes))
            }
            None => Drawing::of(state).exact(format, size_px).map(Bytes::from_static),
        }
    }

    fn make(&self, state: State, format: Format, size_px: u16) -> Vec<u8> {
        let (source, source_format) = match self.folder.picture(state, format) {
            Some(own) => (own.bytes.as_slice(), own.format),
            None => (Drawing::of(state).next_larger(size_px), Format::Png),
        };
        let image = pixels::decode(source, source_format).expect("the folder's loader or a test decoded it");
        pixels::encode(pixels::fit(image, size_px), format).expect("memory takes everything")
    }

    /// A panic elsewhere leaves the map whole: nothing is called while it is held.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Key = (State, Format, u16);

/// The pictures made so far, and those that needed no making, with their versions. A site shows one or two sizes; whoever
/// asks for all of them empties the memory again and again, and nobody else notices.
#[derive(Debug, Default)]
struct Made {
    files: HashMap<Key, File>,
    bytes: usize,
}

const MADE_MAX_BYTES: usize = 4 * 1024 * 1024;

impl Made {
    fn find(&self, key: Key) -> Option<File> {
        self.files.get(&key).cloned()
    }

    fn keep(&mut self, key: Key, file: File) -> File {
        let len = file.bytes.len();
        // Two requests may have made the same one.
        if len <= MADE_MAX_BYTES && !self.files.contains_key(&key) {
            if self.bytes + len > MADE_MAX_BYTES {
                *self = Made::default();
            }
            self.bytes += len;
            self.files.insert(key, file.clone());
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(file: &[u8], format: Format) -> (u32, u32) {
        pixels::decode(file, format).expect("it is a picture").dimensions()
    }

    #[test]
    fn every_state_in_every_format_at_odd_sizes() {
        let icons = Icons::default();
        for state in State::ALL {
            for format in [Format::Png, Format::Gif, Format::WebP] {
                for size_px in [8, 16, 17, 40] {
                    let file = icons.picture(state, format, size_px);
                    assert_eq!(side(&file.bytes, format), (size_px.into(), size_px.into()), "{state:?} {format:?}");
                    assert_eq!(file, icons.picture(state, format, size_px), "made and remembered are one");
                }
            }
        }
        assert_eq!(side(&icons.picture(State::Away, Format::Png, 1024).bytes, Format::Png), (1024, 1024));
    }

    #[test]
    fn the_common_case_touches_no_pixel() {
        let icons = Icons::default();
        for format in [Format::Png, Format::Gif, Format::Svg] {
            assert!(icons.ready(State::Away, format, 16).is_some(), "{format:?}");
        }
        assert!(icons.ready(State::Away, Format::Png, 512).is_some());
    }

    #[tokio::test]
    async fn pictures_are_made_in_turn_and_what_is_there_waits_for_nobody() {
        let icons = Arc::new(Icons::default());
        let turn = icons.turn.clone().lock_owned().await;
        let waits = tokio::spawn({
            let icons = icons.clone();
            async move { icons.in_turn(State::Away, Format::Png, 17).await }
        });
        icons.in_turn(State::Away, Format::Png, 16).await;
        tokio::task::yield_now().await;
        assert!(icons.made().find((State::Away, Format::Png, 17)).is_none(), "it is not its turn");
        drop(turn);
        let file = waits.await.expect("no panic");
        assert_eq!(side(&file.bytes, Format::Png), (17, 17));
        let _turn = icons.turn.clone().lock_owned().await;
        assert_eq!(icons.in_turn(State::Away, Format::Png, 17).await, file, "it was remembered");
    }

    #[tokio::test]
    async fn a_visitor_who_goes_away_leaves_the_turn_to_its_work() {
        let icons = Arc::new(Icons::default());
        let turn = icons.turn.clone().lock_owned().await;
        let mut gone = Box::pin(icons.in_turn(State::Away, Format::Png, 17));
        assert!(look_at(&mut gone).await.is_none());
        drop(turn);
        let _begun = look_at(&mut gone).await;
        drop(gone);
        let _turn = icons.turn.clone().lock_owned().await;
        assert!(icons.made().find((State::Away, Format::Png, 17)).is_some(), "and was done before anybody's turn");
    }

    /// What the future has after one look at it.
    async fn look_at<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut future = std::pin::Pin::new(future);
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let key = |size_px| (State::Away, Format::Png, size_px);
        let file = |bytes: usize| File::from(Bytes::from(vec![0; bytes]));
        let mut made = Made::default();
        made.keep(key(1), file(MADE_MAX_BYTES - 1));
        made.keep(key(2), file(1));
        made.keep(key(2), file(1));
        assert_eq!((made.files.len(), made.bytes), (2, MADE_MAX_BYTES));
        made.keep(key(3), file(MADE_MAX_BYTES + 1));
        assert_eq!((made.files.len(), made.bytes), (2, MADE_MAX_BYTES));
        made.keep(key(3), file(1));
        assert_eq!((made.files.len(), made.bytes), (1, 1));
    }
}
