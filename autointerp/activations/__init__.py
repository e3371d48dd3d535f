"""From streams of activations to what is kept of each unit: sampling, the store on disk, the source over it."""
