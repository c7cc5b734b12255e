//! Where a host is found: a file that says its socket's address and a secret. A host that is started again has another
//! address and writes the file anew; so clients read it before each attempt to connect.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// The address of a running host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its socket.
    pub socket: SocketAddr,
    /// What a client has to say first. It keeps out whoever connects by mistake: another program's client, or a client
    /// of a host whose port was given to this one.
    pub secret: u64,
}

impl Address {
    /// Writes the file, all at once: a reader finds the old address or the new one.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        std::fs::write(&unfinished, format!("{} {:016x}\n", self.socket, self.secret))?;
        std::fs::rename(unfinished, path)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If there is none yet, or it is something else.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let other = || io::Error::new(io::ErrorKind::InvalidData, "the file is not a host's address");
        let (socket, secret) = text.trim_end().split_once(' ').ok_or_else(other)?;
        let socket = socket.parse().map_err(|_| other())?;
        let secret = u64::from_str_radix(secret, 16).map_err(|_| other())?;
        Ok(Self { socket, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written_and_anything_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.address");
        assert_eq!(Address::read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let address = Address { socket: "127.0.0.1:4711".parse().unwrap(), secret: 7 };
        address.write(&path).unwrap();
        assert_eq!(Address::read(&path).unwrap(), address);
        std::fs::write(&path, "127.0.0.1:4711").unwrap();
        assert_eq!(Address::read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
