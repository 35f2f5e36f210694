//! The ranks of a run, connected over TCP.
//!
//! Rank 0 listens at `MASTER_ADDR:MASTER_PORT` (under torchrun at the port behind it), the others connect. A sum goes to rank 0, which adds in the order of the
//! ranks and sends the result back: simple, and the same to the last bit each time. A run on many GPUs would use NCCL here;
//! Squall has no part in it.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, no_grad};

use crate::Result;
use crate::net::Net;

/// How long ranks wait for each other to start. The first one may convert the data before.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a rank waits for the others in a step; a rank that dies closes its connection, which is seen at once.
const STEP_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Ranks {
    rank: u64,
    world_size: u64,
    local_rank: usize,
    /// Of rank 0 those to all others, in the order of the ranks; of the others the one to rank 0.
    connections: Vec<TcpStream>,
}

impl Ranks {
    /// Connects the ranks, by the environment that torchrun sets.
    pub(crate) fn from_env() -> Result<Self> {
        let (rank, world_size): (u64, u64) = (number("RANK")?, number("WORLD_SIZE")?);
        let mut port: u16 = number("MASTER_PORT")?;
        // The agent of torchrun listens at MASTER_PORT itself, for stores of torch's own.
        if env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|used| used == "True") {
            port = port
                .checked_add(1)
                .ok_or("MASTER_PORT is the last port, and that of the agent")?;
        }
        let address = env::var("MASTER_ADDR").map_err(|_| "the environment variable MASTER_ADDR is not set")?;
        if rank >= world_size {
            return Err(format!("expected RANK below WORLD_SIZE {world_size}, found {rank}").into());
        }
        let connections = if rank == 0 {
            accept(&address, port, world_size)?
        } else {
            vec![connect(&address, port, rank)?]
        };
        for connection in &connections {
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(STEP_PATIENCE))?;
        }
        Ok(Self {
            rank,
            world_size,
            local_rank: env::var("LOCAL_RANK").map_or(Ok(0), |_| number("LOCAL_RANK"))?,
            connections,
        })
    }

    pub(crate) fn rank(&self) -> u64 {
        self.rank
    }

    pub(crate) fn world_size(&self) -> u64 {
        self.world_size
    }

    pub(crate) fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Waits until all ranks are here.
    pub(crate) fn barrier(&mut self) -> Result<()> {
        self.mean(&mut [])
    }

    /// Gives the net the mean of the ranks' gradients, and returns the mean of their losses.
    pub(crate) fn mean_step(&mut self, net: &mut Net, loss: &Tensor) -> Result<f64> {
        let gradients = net.gradients();
        let flat: Vec<_> = gradients
            .iter()
            .map(Tensor::flatten_all)
            .chain([loss.flatten_all()])
            .collect();
        let flat = Tensor::cat(&flat, 0).to_kind(Kind::Float).to_device(Device::Cpu);
        let mut values: Vec<f32> = Vec::try_from(&flat)?;
        self.mean(&mut values)?;
        let mut rest = &values[..];
        for gradient in &gradients {
            let (own, left) = rest.split_at(gradient.numel());
            let mean = Tensor::from_slice(own).view_as(gradient).to_device(gradient.device());
            no_grad(|| gradient.shallow_clone().copy_(&mean));
            rest = left;
        }
        Ok(f64::from(rest[0]))
    }

    /// Replaces the values by their mean over the ranks.
    fn mean(&mut self, values: &mut [f32]) -> Result<()> {
        if self.rank == 0 {
            let mut sums: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            for connection in &mut self.connections {
                let theirs = receive(connection, values.len())?;
                sums.iter_mut()
                    .zip(theirs)
                    .for_each(|(sum, value)| *sum += f64::from(value));
            }
            let n = self.world_size as f64;
            values
                .iter_mut()
                .zip(sums)
                .for_each(|(value, sum)| *value = (sum / n) as f32);
            for connection in &mut self.connections {
                send(connection, values)?;
            }
        } else {
            let connection = &mut self.connections[0];
            send(connection, values)?;
            values.copy_from_slice(&receive(connection, values.len())?);
        }
        Ok(())
    }
}

trait FlattenAll {
    fn flatten_all(&self) -> Tensor;
}

impl FlattenAll for Tensor {
    fn flatten_all(&self) -> Tensor {
        self.detach().reshape([-1])
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Result<T> {
    let text = env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
    text.parse()
        .map_err(|_| format!("expected a number in the environment variable {name}, found {text:?}").into())
}

/// Waits for a connection from each of the other ranks, which say who they are.
fn accept(address: &str, port: u16, world_size: u64) -> Result<Vec<TcpStream>> {
    if world_size == 1 {
        return Ok(Vec::new());
    }
    let listener =
        TcpListener::bind((address, port)).map_err(|error| format!("cannot listen at {address}:{port}: {error}"))?;
    listener.set_nonblocking(true)?;
    let began = Instant::now();
    let mut connections: Vec<Option<TcpStream>> = (1..world_size).map(|_| None).collect();
    while connections.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((mut connection, _)) => {
                connection.set_nonblocking(false)?;
                connection.set_read_timeout(Some(PATIENCE))?;
                let mut rank = [0; 8];
                connection.read_exact(&mut rank)?;
                let rank = u64::from_le_bytes(rank);
                match connections.get_mut((rank as usize).wrapping_sub(1)) {
                    Some(place @ None) => *place = Some(connection),
                    _ => {
                        return Err(format!(
                            "rank {rank} of {world_size} connected, but is there already or cannot be"
                        )
                        .into());
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let here = connections.iter().flatten().count() + 1;
                return Err(format!("only {here} of {world_size} ranks came within {PATIENCE:?}").into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(connections.into_iter().flatten().collect())
}

fn connect(address: &str, port: u16, rank: u64) -> Result<TcpStream> {
    let began = Instant::now();
    loop {
        match TcpStream::connect((address, port)) {
            Ok(mut connection) => {
                connection.write_all(&rank.to_le_bytes())?;
                return Ok(connection);
            }
            Err(_) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("rank {rank} cannot reach rank 0 at {address}:{port}: {error}").into()),
        }
    }
}

/// One byte, then the values: a barrier has none.
fn send(connection: &mut TcpStream, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = [0]
        .into_iter()
        .chain(values.iter().flat_map(|value| value.to_le_bytes()))
        .collect();
    Ok(connection.write_all(&bytes)?)
}

fn receive(connection: &mut TcpStream, n: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0; 1 + 4 * n];
    connection
        .read_exact(&mut bytes)
        .map_err(|error| format!("another rank went away: {error}"))?;
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(bytes[1..].chunks_exact(4).map(value).collect())
}
