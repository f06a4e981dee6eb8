"""lengthwise: small transformers that compute correctly at every length."""
