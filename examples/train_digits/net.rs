//! A small convolutional net: what the example trains, and nothing of Squall.

use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor, no_grad};

const LEARNING_RATE: f64 = 0.05;
const MOMENTUM: f64 = 0.9;

pub(crate) struct Net {
    layers: nn::Sequential,
    optimizer: nn::Optimizer,
    variables: nn::VarStore,
}

impl Net {
    /// A net with random weights: the same on every rank that seeded libtorch with the same number.
    pub(crate) fn new(device: Device) -> Self {
        // Drawn on the CPU, so that they are the same whatever the device.
        let mut variables = nn::VarStore::new(Device::Cpu);
        let root = variables.root();
        let padded = nn::ConvConfig {
            padding: 1,
            ..Default::default()
        };
        let layers = nn::seq()
            .add(nn::conv2d(&root / "conv1", 1, 16, 3, padded))
            .add_fn(|x| x.relu().max_pool2d_default(2))
            .add(nn::conv2d(&root / "conv2", 16, 32, 3, padded))
            .add_fn(|x| x.relu().max_pool2d_default(2).flat_view())
            .add(nn::linear(&root / "head", 32 * 2 * 2, 10, Default::default()));
        variables.set_device(device);
        let descent = nn::Sgd {
            momentum: MOMENTUM,
            ..Default::default()
        };
        let optimizer = descent
            .build(&variables, LEARNING_RATE)
            .expect("an optimizer over variables that exist");
        Self {
            layers,
            optimizer,
            variables,
        }
    }

    /// The mean loss of a batch, with its gradients computed.
    pub(crate) fn loss(&mut self, pixels: &Tensor, digits: &Tensor) -> Tensor {
        let loss = self.layers.forward(pixels).cross_entropy_for_logits(digits);
        self.optimizer.zero_grad();
        loss.backward();
        loss.detach()
    }

    /// The gradients, in an order that is the same on every rank.
    pub(crate) fn gradients(&self) -> Vec<Tensor> {
        let mut named: Vec<_> = self.variables.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named.into_iter().map(|(_, variable)| variable.grad()).collect()
    }

    /// Goes down the gradients.
    pub(crate) fn step(&mut self) {
        self.optimizer.step();
    }

    /// The likeliest digit of each image.
    pub(crate) fn classify(&self, pixels: &Tensor) -> Tensor {
        no_grad(|| self.layers.forward(pixels).argmax(1, false).to_kind(Kind::Int64))
    }
}
