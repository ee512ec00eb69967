package main

import (
	"fmt"
	"os"
	"time"

	"gopkg.in/yaml.v3"
)

// settings are the keys of dataplaneapi.yaml that the stand-in heeds; it
// ignores all others.
type settings struct {
	API struct {
		Schemes    []string `yaml:"scheme"`
		Host       string   `yaml:"host"`
		Port       int      `yaml:"port"`
		SocketPath string   `yaml:"socket_path"`
		Userlist   struct {
			Name string `yaml:"userlist"`
			File string `yaml:"userlist_file"`
		} `yaml:"userlist"`
		Transaction struct {
			Dir           string `yaml:"transaction_dir"`
			BackupsNumber int    `yaml:"backups_number"`
			BackupsDir    string `yaml:"backups_dir"`
			MaxOpen       int    `yaml:"max_open_transactions"`
		} `yaml:"transaction"`
		Resources struct {
			Maps    string `yaml:"maps_dir"`
			Certs   string `yaml:"ssl_certs_dir"`
			General string `yaml:"general_storage_dir"`
		} `yaml:"resources"`
	} `yaml:"dataplaneapi"`
	HAProxy struct {
		ConfigFile       string        `yaml:"config_file"`
		Binary           string        `yaml:"haproxy_bin"`
		MasterSocket     string        `yaml:"master_runtime"`
		MasterWorker     bool          `yaml:"master_worker_mode"`
		DelayedStartMax  time.Duration `yaml:"delayed_start_max"`
		DelayedStartTick time.Duration `yaml:"delayed_start_tick"`
		Reload           struct {
			DelaySeconds int `yaml:"reload_delay"`
		} `yaml:"reload"`
	} `yaml:"haproxy"`
}

// readSettings reads the file and fills in the defaults of the real one.
func readSettings(file string) (*settings, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &settings{}
	s.API.Schemes = []string{"http"}
	s.API.Host, s.API.Port = "localhost", 5555
	s.API.Userlist.Name = "controller"
	s.API.Transaction.MaxOpen = 20
	s.HAProxy.DelayedStartMax = 30 * time.Second
	s.HAProxy.DelayedStartTick = 500 * time.Millisecond
	if err := yaml.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if s.HAProxy.Reload.DelaySeconds == 0 {
		s.HAProxy.Reload.DelaySeconds = 5
	}
	if s.HAProxy.MasterSocket == "" || !s.HAProxy.MasterWorker {
		return nil, fmt.Errorf("%s: the stand-in reloads over HAProxy's master socket only", file)
	}
	return s, nil
}
