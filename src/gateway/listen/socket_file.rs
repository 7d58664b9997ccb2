//! The file of a Unix socket: bound without a moment in which too many may connect, given to a group, taken over when
//! nobody answers on it, removed when its socket goes, if it is still ours.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix};

use super::{BACKLOG, stream_socket};

/// A socket file of ours. Dropping it removes the file, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    mode: u32,
}

impl SocketFile {
    /// Neither its owner nor its group is needed to connect.
    pub fn is_open_to_all(&self) -> bool {
        self.mode & 0o002 != 0
    }
}

/// What was wrong with a place to listen.
#[derive(Debug)]
pub enum Fault {
    /// Something answers there, or could.
    InUse,
    /// A file is there, and it is no socket.
    NoSocket,
    NoDirectory(PathBuf),
    /// There is no such line in /etc/group.
    UnknownGroup(String),
    /// We may not give the file away.
    ForeignGroup(String, io::Error),
    Io(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::InUse => f.write_str("already in use by a running process"),
            Fault::NoSocket => f.write_str("a file is there that is no socket; remove it or choose another path"),
            Fault::NoDirectory(directory) => write!(f, "there is no directory {}", directory.display()),
            Fault::UnknownGroup(group) => write!(
                f,
                "/etc/group has no group '{group}'; a group that comes from elsewhere (LDAP) can be given by its number"
            ),
            Fault::ForeignGroup(group, error) => {
                write!(f, "cannot give it to the group '{group}' ({error}); only root and members of the group can")
            }
            Fault::Io(error) => error.fmt(f),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A listening socket at `path`. `group` is a name from /etc/group or a number.
pub fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<(UnixListener, SocketFile), Fault> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(Fault::NoDirectory(directory.to_owned()));
    }
    let gid = group.map(|group| gid(group).map(|gid| (group, gid))).transpose()?;
    clear_stale(path)?;
    let (listener, mut file) = bind_for_owner(path)?;
    if let Some((group, gid)) = gid {
        chown(path, None, Some(gid)).map_err(|error| Fault::ForeignGroup(group.to_owned(), error))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Fault::Io)?;
    file.mode = mode;
    Ok((listener, file))
}

/// Binds with mode 0600 at most: on Linux the file takes the mode of the unbound socket, less the umask. The umask
/// itself belongs to the whole process and stays as it is. Elsewhere the umask alone decides for this moment.
fn bind_for_owner(path: &Path) -> Result<(UnixListener, SocketFile), Fault> {
    let io = |error: Errno| if error == Errno::ADDRINUSE { Fault::InUse } else { Fault::Io(error.into()) };
    let socket = stream_socket(AddressFamily::UNIX).map_err(io)?;
    let _ = rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).map_err(io)?).map_err(io)?;
    let found = fs::symlink_metadata(path).map_err(Fault::Io)?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino(), mode: 0o600 };
    rustix::net::listen(&socket, BACKLOG).map_err(io)?;
    Ok((socket.into(), file))
}

/// Removes what a killed process left behind: a socket on which nobody listens.
fn clear_stale(path: &Path) -> Result<(), Fault> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(Fault::NoSocket);
    }
    match connect(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(Fault::Io),
        Err(Errno::NOENT) => Ok(()),
        // Also a full backlog (EAGAIN), a datagram socket, a socket that we may not use: somebody's.
        _ => Err(Fault::InUse),
    }
}

fn connect(path: &Path) -> Result<(), Errno> {
    let socket = stream_socket(AddressFamily::UNIX)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn gid(group: &str) -> Result<u32, Fault> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read("/etc/group").map_err(Fault::Io)?;
    gid_in(&groups, group).ok_or_else(|| Fault::UnknownGroup(group.to_owned()))
}

/// A line is `name:password:gid:members`.
fn gid_in(groups: &[u8], group: &str) -> Option<u32> {
    groups.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next() == Some(group.as_bytes())).then(|| str::from_utf8(fields.nth(1)?).ok()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_file_is_born_for_its_owner_alone_and_gets_its_mode_and_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let born = bind_for_owner(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        drop(born);

        let own_group = fs::metadata(directory.path()).unwrap().gid();
        let number = own_group.to_string();
        for (mode, group) in [(0o660, None), (0o666, Some(number.as_str())), (0o600, None)] {
            let bound = bind(&path, mode, group).unwrap();
            assert_eq!((mode_of(&path), fs::metadata(&path).unwrap().gid()), (mode, own_group));
            drop(bound);
        }
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind, as by a killed process");
        let (listener, file) = bind(&path, 0o660, None).unwrap();
        UnixStream::connect(&path).unwrap();

        assert!(matches!(bind(&path, 0o660, None), Err(Fault::InUse)));
        UnixStream::connect(&path).unwrap();
        drop((file, listener));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_listening_socket_of_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o660, None), Err(Fault::NoSocket)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(matches!(bind(&link, 0o660, None), Err(Fault::NoSocket)));

        let datagrams = directory.path().join("datagrams");
        let _other = UnixDatagram::bind(&datagrams).unwrap();
        assert!(matches!(bind(&datagrams, 0o660, None), Err(Fault::InUse)));

        let nowhere = directory.path().join("missing/socket");
        assert!(matches!(bind(&nowhere, 0o660, None), Err(Fault::NoDirectory(_))));
    }

    #[test]
    fn a_file_that_took_our_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = bind(&path, 0o660, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop((file, listener));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = b"root:x:0:\nwww-data-2:x:34:\nwww-data:x:33:alice,bob\nbroken\nodd:x:many:\n\xff:x:1:\n";
        for (group, expected) in
            [("root", Some(0)), ("www-data", Some(33)), ("broken", None), ("odd", None), ("www", None), ("alice", None)]
        {
            assert_eq!(gid_in(groups, group), expected, "{group}");
        }
        assert!(matches!(gid("33"), Ok(33)));
        assert!(matches!(gid("root"), Ok(0)));
        let error = gid("no such group").unwrap_err().to_string();
        assert!(error.starts_with("/etc/group has no group 'no such group'"), "{error}");
    }
}
