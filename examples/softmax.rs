//! A softmax classifier: what the quickstart trains, and nothing of Squall.

pub(crate) const PIXELS: usize = 64;
const CLASSES: usize = 10;

/// A weight for each class and pixel and a bias for each class; also a gradient, which has the same form.
#[derive(Clone)]
pub(crate) struct Softmax {
    weights: [[f32; PIXELS]; CLASSES],
    biases: [f32; CLASSES],
}

impl Default for Softmax {
    fn default() -> Self {
        Self {
            weights: [[0.0; PIXELS]; CLASSES],
            biases: [0.0; CLASSES],
        }
    }
}

impl Softmax {
    /// The gradient of the mean cross-entropy over a batch, and that mean. Of no rows both are zero.
    pub(crate) fn gradient(&self, pixels: &[f32], digits: &[i64]) -> (Self, f32) {
        let mut gradient = Self::default();
        let mut loss = 0.0;
        let scale = 1.0 / digits.len().max(1) as f32;
        for (image, digit) in pixels.chunks(PIXELS).zip(digits) {
            let probabilities = self.probabilities(image);
            loss -= probabilities[*digit as usize].max(f32::MIN_POSITIVE).ln() * scale;
            for (class, probability) in probabilities.iter().enumerate() {
                let error = (probability - f32::from(class as i64 == *digit)) * scale;
                gradient.biases[class] += error;
                let weights = gradient.weights[class].iter_mut().zip(image);
                weights.for_each(|(weight, pixel)| *weight += error * pixel);
            }
        }
        (gradient, loss)
    }

    /// Adds `scale` times the other.
    pub(crate) fn add(&mut self, other: &Self, scale: f32) {
        let own = self.weights.as_flattened_mut().iter_mut().chain(&mut self.biases);
        let other = other.weights.as_flattened().iter().chain(&other.biases);
        own.zip(other).for_each(|(own, other)| *own += scale * other);
    }

    /// The likeliest class of an image.
    pub(crate) fn classify(&self, image: &[f32]) -> usize {
        let logits = self.logits(image);
        (0..CLASSES)
            .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
            .unwrap_or(0)
    }

    fn logits(&self, image: &[f32]) -> [f32; CLASSES] {
        std::array::from_fn(|class| {
            let products = self.weights[class]
                .iter()
                .zip(image)
                .map(|(weight, pixel)| weight * pixel);
            products.sum::<f32>() + self.biases[class]
        })
    }

    fn probabilities(&self, image: &[f32]) -> [f32; CLASSES] {
        let logits = self.logits(image);
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let powers = logits.map(|logit| (logit - largest).exp());
        let sum: f32 = powers.iter().sum();
        powers.map(|power| power / sum)
    }
}
