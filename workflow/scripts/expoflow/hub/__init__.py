"""The Hugging Face hub: downloads, headers, cards, licences."""
