//! Where the processes are started: from which program, in which directories, at which addresses.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tollgate_http::RequestId;

use super::child::Child;
use crate::{Failure, provider};

/// Where a data directory says at which addresses its processes were.
const ADDRESSES: &str = "addresses.txt";

/// All that a process has to be told, and that stays the same for its successors: what is registered under an address must be found
/// there again.
pub struct Stage {
    program: PathBuf,
    data: PathBuf,
    pub shop: SocketAddr,
    provider: SocketAddr,
    /// Drawn for this run: the provider knows the shop by it.
    key: String,
}

impl Stage {
    /// The addresses are those that the directory was used with before, or two free ones.
    pub fn new(data: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let known = std::fs::read_to_string(data.join(ADDRESSES)).unwrap_or_default();
        let known = known.lines().map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
        let (shop, provider) = if let [shop, provider] = known[..] { (shop, provider) } else { free(data)? };
        Ok(Self { program, data: data.to_owned(), shop, provider, key: RequestId::random().to_string() })
    }

    pub fn start_shop(&self, seed: u64) -> Result<Child, Failure> {
        let mut command = self.command("shop", self.shop, seed);
        command.arg("--payments").arg(format!("http://{}{}", self.provider, provider::PAYMENTS));
        Child::start("the shop", command)
    }

    pub fn start_provider(&self, seed: u64) -> Result<Child, Failure> {
        Child::start("the provider", self.command("provider", self.provider, seed))
    }

    fn command(&self, name: &str, address: SocketAddr, seed: u64) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).arg("--data").arg(self.data.join(name)).arg("--listen").arg(address.to_string());
        command.arg("--seed").arg(seed.to_string()).env(provider::KEY, &self.key);
        command
    }
}

fn free(data: &Path) -> Result<(SocketAddr, SocketAddr), Failure> {
    let (shop, provider) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (shop, provider) = (shop.local_addr()?, provider.local_addr()?);
    std::fs::write(data.join(ADDRESSES), format!("{shop}\n{provider}\n"))?;
    Ok((shop, provider))
}
