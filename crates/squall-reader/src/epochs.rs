//! A run taken epoch by epoch, as in `for epoch in …: for batch in loader`.

use squall_schema::Result;

/// What is read over one or more epochs.
///
/// ```no_run
/// # fn main() -> squall_schema::Result<()> {
/// use squall_reader::{Epochs, make_batch_reader};
///
/// let mut reader = make_batch_reader("/data/train").epochs(3).build()?;
/// while let Some(epoch) = reader.next_epoch() {
///     println!("epoch {}", epoch.number());
///     for batch in epoch {
///         println!("{} rows", batch?.num_rows());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub trait Epochs: Iterator {
    /// The epoch of what comes next, from 0; `None` behind the last one.
    fn epoch(&self) -> Option<u64>;

    /// The next item, if it is of this epoch.
    #[doc(hidden)]
    fn next_of(&mut self, epoch: u64) -> Option<Self::Item> {
        match self.epoch() {
            Some(own) if own == epoch => self.next(),
            _ => None,
        }
    }

    /// What is left of the epoch that is read now, or the next one. It is an iterator that ends with its epoch; dropped
    /// before, the epoch goes on where it stands. `None` behind the last epoch.
    fn next_epoch(&mut self) -> Option<Epoch<'_, Self>>
    where
        Self: Sized,
    {
        let number = self.epoch()?;
        Some(Epoch { reader: self, number })
    }
}

/// What is left of an epoch. Made by [`Epochs::next_epoch`].
#[derive(Debug)]
pub struct Epoch<'a, R> {
    reader: &'a mut R,
    number: u64,
}

impl<R> Epoch<'_, R> {
    /// The epoch, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl<T, R: Epochs<Item = Result<T>>> Iterator for Epoch<'_, R> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.next_of(self.number)
    }
}
