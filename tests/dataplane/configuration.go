package main

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/go-openapi/strfmt"
	"github.com/haproxytech/client-native/v6/configuration"
	"github.com/haproxytech/client-native/v6/models"
)

func (s *server) routeConfiguration(mux *http.ServeMux) {
	mux.HandleFunc("GET "+conf+"/version", s.getVersion)
	mux.HandleFunc("GET "+conf+"/raw", s.getRaw)
	mux.HandleFunc("POST "+conf+"/raw", s.postRaw)
	mux.HandleFunc("GET "+conf+"/global", s.getGlobal)
	mux.HandleFunc("PUT "+conf+"/global", s.putGlobal)
	mux.HandleFunc("GET "+conf+"/backends/{parent}/servers", children(s, "backend", configuration.Configuration.GetServers))
	mux.HandleFunc("GET "+conf+"/frontends/{parent}/binds", children(s, "frontend", configuration.Configuration.GetBinds))
	section[models.Defaults, *models.Defaults, models.DefaultsSections]{
		list:       configuration.Configuration.GetDefaultsSections,
		listFull:   configuration.Configuration.GetStructuredDefaultsSections,
		get:        configuration.Configuration.GetDefaultsSection,
		getFull:    configuration.Configuration.GetStructuredDefaultsSection,
		create:     configuration.Configuration.CreateDefaultsSection,
		createFull: configuration.Configuration.CreateStructuredDefaultsSection,
		edit:       configuration.Configuration.EditDefaultsSection,
		editFull:   configuration.Configuration.EditStructuredDefaultsSection,
		remove:     configuration.Configuration.DeleteDefaultsSection,
	}.route(s, mux, conf+"/defaults")
	section[models.Frontend, *models.Frontend, models.Frontends]{
		list:       configuration.Configuration.GetFrontends,
		listFull:   configuration.Configuration.GetStructuredFrontends,
		get:        configuration.Configuration.GetFrontend,
		getFull:    configuration.Configuration.GetStructuredFrontend,
		create:     configuration.Configuration.CreateFrontend,
		createFull: configuration.Configuration.CreateStructuredFrontend,
		edit:       configuration.Configuration.EditFrontend,
		editFull:   configuration.Configuration.EditStructuredFrontend,
		remove:     configuration.Configuration.DeleteFrontend,
	}.route(s, mux, conf+"/frontends")
	section[models.Backend, *models.Backend, models.Backends]{
		list:       configuration.Configuration.GetBackends,
		listFull:   configuration.Configuration.GetStructuredBackends,
		get:        configuration.Configuration.GetBackend,
		getFull:    configuration.Configuration.GetStructuredBackend,
		create:     configuration.Configuration.CreateBackend,
		createFull: configuration.Configuration.CreateStructuredBackend,
		edit:       configuration.Configuration.EditBackend,
		editFull:   configuration.Configuration.EditStructuredBackend,
		remove:     configuration.Configuration.DeleteBackend,
	}.route(s, mux, conf+"/backends")
}

// section is one kind of named section: the calls of client-native for it, each
// once for the section alone and once with all its children (full_section).
type section[T any, P interface {
	*T
	Validate(strfmt.Registry) error
}, L any] struct {
	list, listFull     func(configuration.Configuration, string) (int64, L, error)
	get, getFull       func(configuration.Configuration, string, string) (int64, *T, error)
	create, createFull func(configuration.Configuration, *T, string, int64) error
	edit, editFull     func(configuration.Configuration, string, *T, string, int64) error
	remove             func(configuration.Configuration, string, string, int64) error
}

func pick[F any](full bool, whole, alone F) F {
	if full {
		return whole
	}
	return alone
}

func (k section[T, P, L]) route(s *server, mux *http.ServeMux, path string) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		q := queryOf(r)
		read(s, w, func(c configuration.Configuration) (any, error) {
			_, list, err := pick(q.full, k.listFull, k.list)(c, q.transaction)
			return list, err
		})
	})
	mux.HandleFunc("GET "+path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		q := queryOf(r)
		read(s, w, func(c configuration.Configuration) (any, error) {
			_, found, err := pick(q.full, k.getFull, k.get)(c, r.PathValue("name"), q.transaction)
			return found, err
		})
	})
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		data, q := new(T), queryOf(r)
		if !decode(w, r, P(data)) {
			return
		}
		s.change(w, q, http.StatusCreated, data, func(c configuration.Configuration) error {
			return pick(q.full, k.createFull, k.create)(c, data, q.transaction, q.version)
		})
	})
	mux.HandleFunc("PUT "+path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		data, q := new(T), queryOf(r)
		if !decode(w, r, P(data)) {
			return
		}
		s.change(w, q, http.StatusOK, data, func(c configuration.Configuration) error {
			return pick(q.full, k.editFull, k.edit)(c, r.PathValue("name"), data, q.transaction, q.version)
		})
	})
	mux.HandleFunc("DELETE "+path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		q := queryOf(r)
		s.change(w, q, http.StatusNoContent, nil, func(c configuration.Configuration) error {
			return k.remove(c, r.PathValue("name"), q.transaction, q.version)
		})
	})
}

// children answers with the members of a section; a section that does not
// exist has none.
func children[L any](
	s *server, kind string, list func(configuration.Configuration, string, string, string) (int64, L, error),
) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		read(s, w, func(c configuration.Configuration) (any, error) {
			_, found, err := list(c, kind, r.PathValue("parent"), queryOf(r).transaction)
			if errors.Is(err, configuration.ErrParentDoesNotExist) {
				return []any{}, nil
			}
			return found, err
		})
	}
}

func read(s *server, w http.ResponseWriter, get func(configuration.Configuration) (any, error)) {
	var found any
	if err := s.withConfig(func(c configuration.Configuration) (err error) {
		found, err = get(c)
		return err
	}); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, found)
}

// change makes one change, in a transaction (202, and no reload) or at once.
func (s *server) change(w http.ResponseWriter, q query, done int, body any, apply func(configuration.Configuration) error) {
	if q.transaction != "" && q.force {
		fail(w, badRequest("force_reload has no place in a transaction"))
		return
	}
	if err := s.withConfig(apply); err != nil {
		fail(w, err)
		return
	}
	if q.transaction != "" {
		reply(w, http.StatusAccepted, body)
		return
	}
	s.settle(w, q.force, done, body)
}

func (s *server) getVersion(w http.ResponseWriter, r *http.Request) {
	read(s, w, func(c configuration.Configuration) (any, error) {
		return c.GetConfigurationVersion(queryOf(r).transaction)
	})
}

func (s *server) getGlobal(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	read(s, w, func(c configuration.Configuration) (any, error) {
		_, found, err := pick(q.full, c.GetStructuredGlobalConfiguration, c.GetGlobalConfiguration)(q.transaction)
		return found, err
	})
}

func (s *server) putGlobal(w http.ResponseWriter, r *http.Request) {
	data, q := &models.Global{}, queryOf(r)
	if !decode(w, r, data) {
		return
	}
	if err := configuration.ValidateGlobalSection(data); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	s.change(w, q, http.StatusOK, data, func(c configuration.Configuration) error {
		return pick(q.full, c.PushStructuredGlobalConfiguration, c.PushGlobalConfiguration)(data, q.transaction, q.version)
	})
}

// rawText is the configuration as text, and its checksum if it has one.
type rawText struct{ text, checksum string }

func (s *server) readRaw(transaction string, version int64) (raw rawText, err error) {
	err = s.withConfig(func(c configuration.Configuration) (err error) {
		_, _, raw.checksum, raw.text, err = c.GetRawConfigurationWithClusterData(transaction, version)
		return err
	})
	return raw, err
}

func (raw rawText) write(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain")
	if raw.checksum != "" {
		w.Header().Set("Configuration-Checksum", raw.checksum)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, raw.text)
}

func (s *server) getRaw(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	raw, err := s.readRaw(q.transaction, q.version)
	if err != nil {
		fail(w, err)
		return
	}
	raw.write(w, http.StatusOK)
}

func (s *server) postRaw(w http.ResponseWriter, r *http.Request) {
	text, ok := plain(w, r)
	if !ok {
		return
	}
	q := queryOf(r)
	if !strings.Contains(text, "\n") {
		fail(w, badRequest("not a configuration: no line ends"))
		return
	}
	if err := s.withConfig(func(c configuration.Configuration) error {
		return c.PostRawConfiguration(&text, q.version, q.skipVersion, q.validate)
	}); err != nil {
		fail(w, err)
		return
	}
	raw, err := s.readRaw("", 0)
	if err != nil {
		fail(w, err)
		return
	}
	switch {
	case q.validate:
		raw.write(w, http.StatusAccepted)
	case q.skipReload:
		raw.write(w, http.StatusCreated)
	case q.force:
		if err := s.reloads.now(); err != nil {
			fail(w, err)
			return
		}
		raw.write(w, http.StatusCreated)
	default:
		w.Header().Set("Reload-ID", s.reloads.schedule())
		raw.write(w, http.StatusAccepted)
	}
}
