package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"mime"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-openapi/strfmt"
	parser "github.com/haproxytech/client-native/v6/config-parser"
	parseroptions "github.com/haproxytech/client-native/v6/config-parser/options"
	"github.com/haproxytech/client-native/v6/config-parser/types"
	"github.com/haproxytech/client-native/v6/configuration"
	confoptions "github.com/haproxytech/client-native/v6/configuration/options"
	nativeerrors "github.com/haproxytech/client-native/v6/errors"
	"github.com/haproxytech/client-native/v6/models"
	"github.com/haproxytech/client-native/v6/runtime"
	runtimeoptions "github.com/haproxytech/client-native/v6/runtime/options"
	"github.com/haproxytech/client-native/v6/storage"
)

const (
	services = "/v3/services/haproxy"
	conf     = services + "/configuration"
	live     = services + "/runtime"
	stored   = services + "/storage"
)

// server holds the three clients of client-native that every handler stands on.
type server struct {
	settings *settings
	users    map[string]string
	reloads  *reloads
	runtime  runtime.Runtime
	maps     storage.Storage
	general  storage.Storage
	certs    storage.Storage

	configMu sync.Mutex
	config   configuration.Configuration // only through withConfig
}

func newServer(ctx context.Context, set *settings) (*server, error) {
	s := &server{settings: set}
	var err error
	if s.users, err = readUsers(set); err != nil {
		return nil, err
	}
	if s.config, err = configuration.New(ctx,
		confoptions.ConfigurationFile(set.HAProxy.ConfigFile),
		confoptions.HAProxyBin(set.HAProxy.Binary),
		confoptions.Backups(set.API.Transaction.BackupsNumber),
		confoptions.BackupsDir(set.API.Transaction.BackupsDir),
		confoptions.TransactionsDir(set.API.Transaction.Dir),
		confoptions.UsePersistentTransactions,
		confoptions.MasterWorker,
		confoptions.UseMd5Hash,
		confoptions.PreferredTimeSuffix("nearest"),
	); err != nil {
		return nil, err
	}
	if s.runtime, err = runtime.New(ctx,
		runtimeoptions.MapsDir(set.API.Resources.Maps),
		runtimeoptions.MasterSocket(set.HAProxy.MasterSocket),
		runtimeoptions.AllowDelayedStart(set.HAProxy.DelayedStartMax, set.HAProxy.DelayedStartTick),
	); err != nil {
		return nil, err
	}
	if s.maps, err = storage.New(set.API.Resources.Maps, storage.MapsType); err != nil {
		return nil, err
	}
	if s.general, err = storage.New(set.API.Resources.General, storage.GeneralType); err != nil {
		return nil, err
	}
	if s.certs, err = storage.New(set.API.Resources.Certs, storage.SSLType); err != nil {
		return nil, err
	}
	s.reloads, err = newReloads(s)
	return s, err
}

// withConfig gives fn the configuration, one at a time: a stand-in had better
// be predictable than fast.
func (s *server) withConfig(fn func(configuration.Configuration) error) error {
	s.configMu.Lock()
	defer s.configMu.Unlock()
	return fn(s.config)
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v3/info", s.getInfo)
	s.routeConfiguration(mux)
	s.routeTransactions(mux)
	s.routeReloads(mux)
	s.routeMaps(mux)
	s.routeServers(mux)
	s.routeStorage(mux)
	s.routeCertificates(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, statusError{http.StatusNotFound, "no such path: " + r.URL.Path})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &versioned{ResponseWriter: w, server: s, transaction: r.URL.Query().Get("transaction_id")}
		if s.authorized(r) {
			mux.ServeHTTP(v, r)
		} else {
			v.Header().Set("WWW-Authenticate", `Basic realm="API"`)
			fail(v, statusError{http.StatusUnauthorized, "unauthorized"})
		}
		log.Printf("%s %s %d", r.Method, r.URL.RequestURI(), v.status)
	})
}

// versioned adds the Configuration-Version header, as it is after the call.
type versioned struct {
	http.ResponseWriter
	server      *server
	transaction string
	status      int
}

func (v *versioned) WriteHeader(status int) {
	v.status = status
	_ = v.server.withConfig(func(c configuration.Configuration) error {
		number, err := c.GetConfigurationVersion(v.transaction)
		if err == nil {
			v.Header().Set("Configuration-Version", strconv.FormatInt(number, 10))
		}
		return err
	})
	v.ResponseWriter.WriteHeader(status)
}

// readUsers reads name and password of every insecure-password user.
func readUsers(set *settings) (map[string]string, error) {
	file := set.HAProxy.ConfigFile
	if set.API.Userlist.File != "" {
		file = set.API.Userlist.File
	}
	p, err := parser.New(parseroptions.Path(file))
	if err != nil {
		return nil, err
	}
	data, err := p.Get(parser.UserList, set.API.Userlist.Name, "user")
	if err != nil {
		return nil, fmt.Errorf("no users in userlist %s of %s: %w", set.API.Userlist.Name, file, err)
	}
	users := map[string]string{}
	for _, user := range data.([]types.User) {
		if user.IsInsecure {
			users[user.Name] = user.Password
		}
	}
	return users, nil
}

func (s *server) authorized(r *http.Request) bool {
	name, password, given := r.BasicAuth()
	want, known := s.users[name]
	return given && known && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
}

func (s *server) getInfo(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, &models.Info{API: &models.InfoAPI{Version: version}, System: &models.InfoSystem{}})
}

// reply writes body as JSON; a nil body writes the status alone.
func reply(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// statusError is an error that knows its status.
type statusError struct {
	status  int
	message string
}

func (e statusError) Error() string { return e.message }

func badRequest(message string) error { return statusError{http.StatusBadRequest, message} }

// fail answers with the error body of the API: {"code": …, "message": …}.
func fail(w http.ResponseWriter, err error) {
	failWith(w, err, statusOf(err, http.StatusInternalServerError))
}

// failRuntime is fail for the calls on maps and storage, for which what HAProxy
// refuses is a 400 and not a 500.
func failRuntime(w http.ResponseWriter, err error) {
	if errors.Is(err, nativeerrors.ErrGeneral) {
		failWith(w, err, http.StatusBadRequest)
		return
	}
	fail(w, err)
}

func failWith(w http.ResponseWriter, err error, status int) {
	code, message := int64(status), err.Error()
	reply(w, status, &models.Error{Code: &code, Message: &message})
}

func statusOf(err error, otherwise int) int {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.status
	}
	for status, kinds := range map[int][]error{
		http.StatusNotFound: {configuration.ErrObjectDoesNotExist, nativeerrors.ErrNotFound},
		http.StatusConflict: {
			configuration.ErrObjectAlreadyExists, configuration.ErrVersionMismatch,
			configuration.ErrTransactionAlreadyExists, nativeerrors.ErrAlreadyExists,
		},
		http.StatusBadRequest: {
			configuration.ErrObjectIndexOutOfRange, configuration.ErrValidationError,
			configuration.ErrBothVersionTransaction, configuration.ErrNoVersionTransaction,
			configuration.ErrNoParentSpecified, configuration.ErrParentDoesNotExist,
			configuration.ErrTransactionDoesNotExist, configuration.ErrGeneralError,
		},
	} {
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return status
			}
		}
	}
	return otherwise
}

// wants answers 415 unless the body has the media type.
func wants(w http.ResponseWriter, r *http.Request, mediaType string) bool {
	got, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if got == mediaType {
		return true
	}
	fail(w, statusError{http.StatusUnsupportedMediaType, "expected a body of " + mediaType})
	return false
}

// decode reads a JSON body and checks it against its schema.
func decode(w http.ResponseWriter, r *http.Request, into interface {
	Validate(strfmt.Registry) error
}) bool {
	if !wants(w, r, "application/json") {
		return false
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		fail(w, badRequest(err.Error()))
		return false
	}
	if err := into.Validate(strfmt.Default); err != nil {
		fail(w, statusError{http.StatusUnprocessableEntity, err.Error()})
		return false
	}
	return true
}

// query holds the parameters that calls share.
type query struct {
	transaction                                          string
	version                                              int64
	full, force, skipReload, skipVersion, validate, sync bool
}

func queryOf(r *http.Request) query {
	values := r.URL.Query()
	is := func(name string) bool { return values.Get(name) == "true" }
	number, _ := strconv.ParseInt(values.Get("version"), 10, 64)
	return query{
		transaction: values.Get("transaction_id"),
		version:     number,
		full:        is("full_section"),
		force:       is("force_reload"),
		skipReload:  is("skip_reload"),
		skipVersion: is("skip_version"),
		validate:    is("only_validate"),
		sync:        is("force_sync"),
	}
}
