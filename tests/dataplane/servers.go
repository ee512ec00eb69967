package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	nativeerrors "github.com/haproxytech/client-native/v6/errors"
	"github.com/haproxytech/client-native/v6/models"
)

func (s *server) routeServers(mux *http.ServeMux) {
	const path = live + "/backends/{backend}/servers"
	mux.HandleFunc("GET "+path, s.listServers)
	mux.HandleFunc("POST "+path, s.postServer)
	mux.HandleFunc("GET "+path+"/{server}", s.getServer)
	mux.HandleFunc("PUT "+path+"/{server}", s.putServer)
	mux.HandleFunc("DELETE "+path+"/{server}", s.deleteServer)
}

// failServer is fail, and knows how HAProxy words what does not exist.
func failServer(w http.ResponseWriter, err error) {
	switch {
	case strings.Contains(err.Error(), "No such backend"):
		failWith(w, err, http.StatusNotFound)
	case strings.Contains(err.Error(), "Already exists"):
		failWith(w, err, http.StatusConflict)
	default:
		fail(w, err)
	}
}

func (s *server) listServers(w http.ResponseWriter, r *http.Request) {
	list, err := s.runtime.GetServersState(r.PathValue("backend"))
	if err != nil {
		failServer(w, err)
		return
	}
	reply(w, http.StatusOK, list)
}

func (s *server) getServer(w http.ResponseWriter, r *http.Request) {
	state, err := s.serverState(r)
	if err != nil {
		failServer(w, err)
		return
	}
	reply(w, http.StatusOK, state)
}

func (s *server) serverState(r *http.Request) (*models.RuntimeServer, error) {
	state, err := s.runtime.GetServerState(r.PathValue("backend"), r.PathValue("server"))
	if err == nil && state == nil {
		err = fmt.Errorf("%s: %w", r.PathValue("server"), nativeerrors.ErrNotFound)
	}
	return state, err
}

func (s *server) postServer(w http.ResponseWriter, r *http.Request) {
	data := &models.RuntimeAddServer{}
	if !decode(w, r, data) {
		return
	}
	if data.Name == "" {
		fail(w, badRequest("a server has a name"))
		return
	}
	if err := s.runtime.AddServer(r.PathValue("backend"), data.Name, addServerWords(data)); err != nil {
		failServer(w, err)
		return
	}
	reply(w, http.StatusCreated, data)
}

// putServer changes what the body names and leaves the rest.
func (s *server) putServer(w http.ResponseWriter, r *http.Request) {
	want := &models.RuntimeServer{}
	if !decode(w, r, want) {
		return
	}
	have, err := s.serverState(r)
	if err != nil {
		failServer(w, err)
		return
	}
	backend, name := r.PathValue("backend"), r.PathValue("server")
	if want.OperationalState != "" && want.OperationalState != have.OperationalState {
		err = errors.Join(err, s.runtime.SetServerHealth(backend, name, want.OperationalState))
	}
	if want.AdminState != "" && want.AdminState != have.AdminState {
		err = errors.Join(err, s.runtime.SetServerState(backend, name, want.AdminState))
	}
	if want.Weight != nil && number(want.Weight) != number(have.Weight) {
		err = errors.Join(err, s.runtime.SetServerWeight(backend, name, strconv.FormatInt(*want.Weight, 10)))
	}
	address, port := have.Address, number(have.Port)
	if want.Address != "" {
		address = want.Address
	}
	if want.Port != nil {
		port = *want.Port
	}
	if address != have.Address || port != number(have.Port) {
		err = errors.Join(err, s.runtime.SetServerAddr(backend, name, address, int(port)))
	}
	if err == nil {
		have, err = s.serverState(r)
	}
	if err != nil {
		failServer(w, err)
		return
	}
	reply(w, http.StatusOK, have)
}

func number(p *int64) int64 {
	if p == nil {
		return -1
	}
	return *p
}

// deleteServer disables the server if need be. HAProxy refuses to delete one
// that still has connections.
func (s *server) deleteServer(w http.ResponseWriter, r *http.Request) {
	state, err := s.serverState(r)
	backend, name := r.PathValue("backend"), r.PathValue("server")
	if err == nil && state.AdminState != models.RuntimeServerAdminStateMaint {
		err = s.runtime.DisableServer(backend, name)
	}
	if err == nil {
		err = s.runtime.DeleteServer(backend, name)
	}
	if err != nil {
		failServer(w, err)
		return
	}
	reply(w, http.StatusNoContent, nil)
}

// addServerWords renders the arguments of HAProxy's "add server". Not all of
// its keywords are here, only those that a proxy for Kubernetes may want.
func addServerWords(d *models.RuntimeAddServer) string {
	address := d.Address
	if d.Port != nil {
		address += ":" + strconv.FormatInt(*d.Port, 10)
	}
	words := []string{address}
	for _, f := range []struct {
		word string
		on   bool
	}{
		{"allow-0rtt", d.Allow0rtt},
		{"backup", d.Backup == "enabled"},
		{"check", d.Check == "enabled"},
		{"check-ssl", d.CheckSsl == "enabled"},
		{"check-send-proxy", d.CheckSendProxy == "enabled"},
		{"disabled", d.Maintenance == "enabled"},
		{"no-ssl-reuse", d.SslReuse == "disabled"},
		{"no-tls-tickets", d.TLSTickets == "disabled"},
		{"send-proxy", d.SendProxy == "enabled"},
		{"send-proxy-v2", d.SendProxyV2 == "enabled"},
		{"send-proxy-v2-ssl", d.SendProxyV2Ssl == "enabled"},
		{"ssl", d.Ssl == "enabled"},
		{"tfo", d.Tfo == "enabled"},
		{"tls-tickets", d.TLSTickets == "enabled"},
	} {
		if f.on {
			words = append(words, f.word)
		}
	}
	for _, f := range []struct{ word, value string }{
		{"addr", d.HealthCheckAddress},
		{"alpn", d.Alpn},
		{"ca-file", d.SslCafile},
		{"check-alpn", d.CheckAlpn},
		{"check-proto", d.CheckProto},
		{"check-sni", d.CheckSni},
		{"ciphers", d.Ciphers},
		{"ciphersuites", d.Ciphersuites},
		{"crl-file", d.CrlFile},
		{"crt", d.SslCertificate},
		{"id", d.ID},
		{"observe", d.Observe},
		{"on-error", d.OnError},
		{"on-marked-down", d.OnMarkedDown},
		{"on-marked-up", d.OnMarkedUp},
		{"proto", d.Proto},
		{"proxy-v2-options", strings.Join(d.ProxyV2Options, ",")},
		{"sni", d.Sni},
		{"source", d.Source},
		{"ssl-max-ver", d.SslMaxVer},
		{"ssl-min-ver", d.SslMinVer},
		{"track", d.Track},
		{"verify", d.Verify},
		{"verifyhost", d.Verifyhost},
		{"ws", d.Ws},
	} {
		if f.value != "" {
			words = append(words, f.word, f.value)
		}
	}
	for _, f := range []struct {
		word  string
		value *int64
	}{
		{"downinter", d.Downinter},
		{"error-limit", d.ErrorLimit},
		{"fall", d.Fall},
		{"fastinter", d.Fastinter},
		{"inter", d.Inter},
		{"maxconn", d.Maxconn},
		{"maxqueue", d.Maxqueue},
		{"minconn", d.Minconn},
		{"pool-low-conn", d.PoolLowConn},
		{"pool-max-conn", d.PoolMaxConn},
		{"pool-purge-delay", d.PoolPurgeDelay},
		{"port", d.HealthCheckPort},
		{"rise", d.Rise},
		{"slowstart", d.Slowstart},
		{"weight", d.Weight},
	} {
		if f.value != nil {
			words = append(words, f.word, strconv.FormatInt(*f.value, 10))
		}
	}
	return strings.Join(words, " ")
}
