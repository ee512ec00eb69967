// Command dataplaneapi is a stand-in for HAProxy's Data Plane API, for tests
// only. README.md says what it does and what it leaves out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is what GET /v3/info reports; gwctl compares its numbers.
const version = "v3.4.2 stand-in"

func main() {
	file := flag.String("f", "", "`path` of dataplaneapi.yaml")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()

	log.SetFlags(log.Ltime | log.Lmicroseconds)
	log.SetOutput(os.Stdout)
	if *showVersion {
		fmt.Printf("HAProxy Data Plane API %s\n", version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *file); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends. It listens only once HAProxy's socket answers.
func run(ctx context.Context, file string) error {
	settings, err := readSettings(file)
	if err != nil {
		return err
	}
	s, err := newServer(ctx, settings)
	if err != nil {
		return err
	}
	listeners, err := listen(settings)
	if err != nil {
		return err
	}
	go s.reloads.loop(ctx)

	web := &http.Server{Handler: s.handler()}
	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		log.Printf("listening on %s", listener.Addr())
		go func() { failed <- web.Serve(listener) }()
	}
	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	rest, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := web.Shutdown(rest); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listen opens one listener for each scheme of the settings.
func listen(settings *settings) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, scheme := range settings.API.Schemes {
		network, address := "tcp", net.JoinHostPort(settings.API.Host, fmt.Sprint(settings.API.Port))
		switch scheme {
		case "http":
		case "unix":
			network, address = "unix", settings.API.SocketPath
		default:
			return nil, fmt.Errorf("scheme %q is not supported", scheme)
		}
		listener, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}
