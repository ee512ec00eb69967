"""What a Gateway needs in the cluster besides HAProxy: its Service. Graph and Snapshot in, changes of Services out."""
