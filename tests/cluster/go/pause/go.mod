module gwctl/cluster/pause

go 1.26.0
