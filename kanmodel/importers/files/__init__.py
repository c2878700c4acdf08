"""Files of trained models, read without running what they name: archives, pickles, programs, manifests."""
