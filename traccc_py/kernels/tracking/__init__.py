"""What stages share: collections of a batch, helices and transport, navigation, material, Kalman updates."""
