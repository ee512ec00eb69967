"""The scripts of HAProxy's image, without a container."""
