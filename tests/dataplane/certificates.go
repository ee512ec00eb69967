package main

import (
	"net/http"
	"strconv"

	"github.com/haproxytech/client-native/v6/models"
)

// routeCertificates serves what HAProxy holds in memory: certificates, lists of
// certificates, and certificate authorities.
func (s *server) routeCertificates(mux *http.ServeMux) {
	const certs, lists, authorities = live + "/ssl_certs", live + "/ssl_crt_lists", live + "/ssl_ca_files"

	mux.HandleFunc("GET "+certs, show(func(*http.Request) (any, error) { return s.runtime.ShowCerts() }))
	mux.HandleFunc("GET "+certs+"/{name}", show(func(r *http.Request) (any, error) {
		return s.runtime.ShowCertificate(r.PathValue("name"))
	}))
	mux.HandleFunc("POST "+certs, uploaded(http.StatusCreated, func(_ *http.Request, name, text string) error {
		if err := s.runtime.NewCertEntry(name); err != nil {
			return err
		}
		return s.setCert(name, text)
	}))
	mux.HandleFunc("PUT "+certs+"/{name}", uploaded(http.StatusOK, func(r *http.Request, _, text string) error {
		return s.setCert(r.PathValue("name"), text)
	}))
	mux.HandleFunc("DELETE "+certs+"/{name}", perform(http.StatusNoContent, func(r *http.Request) error {
		return s.runtime.DeleteCertEntry(r.PathValue("name"))
	}))

	// A list is named by its path, so its name is a parameter of the query.
	mux.HandleFunc("GET "+lists, show(func(*http.Request) (any, error) { return s.runtime.ShowCrtLists() }))
	mux.HandleFunc("GET "+lists+"/entries", show(func(r *http.Request) (any, error) {
		return s.runtime.ShowCrtListEntries(r.URL.Query().Get("name"))
	}))
	mux.HandleFunc("POST "+lists+"/entries", func(w http.ResponseWriter, r *http.Request) {
		entry := &models.SslCrtListEntry{}
		if decode(w, r, entry) {
			perform(http.StatusCreated, func(r *http.Request) error {
				return s.runtime.AddCrtListEntry(r.URL.Query().Get("name"), *entry)
			})(w, r)
		}
	})
	mux.HandleFunc("DELETE "+lists+"/entries", perform(http.StatusNoContent, func(r *http.Request) error {
		values := r.URL.Query()
		var number *int64
		if values.Has("line_number") {
			line, err := strconv.ParseInt(values.Get("line_number"), 10, 64)
			if err != nil {
				return badRequest("line_number: " + err.Error())
			}
			number = &line
		}
		return s.runtime.DeleteCrtListEntry(values.Get("name"), values.Get("cert_file"), number)
	}))

	mux.HandleFunc("GET "+authorities, show(func(*http.Request) (any, error) { return s.runtime.ShowCAFiles() }))
	mux.HandleFunc("GET "+authorities+"/{name}", show(func(r *http.Request) (any, error) {
		return s.runtime.GetCAFile(r.PathValue("name"))
	}))
	mux.HandleFunc("POST "+authorities, uploaded(http.StatusCreated, func(_ *http.Request, name, text string) error {
		if err := s.runtime.NewCAFile(name); err != nil {
			return err
		}
		return s.setAuthority(name, text)
	}))
	mux.HandleFunc("PUT "+authorities+"/{name}", uploaded(http.StatusCreated, func(r *http.Request, _, text string) error {
		return s.setAuthority(r.PathValue("name"), text)
	}))
	mux.HandleFunc("DELETE "+authorities+"/{name}", perform(http.StatusNoContent, func(r *http.Request) error {
		return s.runtime.DeleteCAFile(r.PathValue("name"))
	}))
}

func (s *server) setCert(name, text string) error {
	if err := s.runtime.SetCertEntry(name, text); err != nil {
		return err
	}
	return s.runtime.CommitCertEntry(name)
}

func (s *server) setAuthority(name, text string) error {
	if err := s.runtime.SetCAFile(name, text); err != nil {
		return err
	}
	return s.runtime.CommitCAFile(name)
}

func show(get func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		found, err := get(r)
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, found)
	}
}

func perform(done int, act func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := act(r); err != nil {
			fail(w, err)
			return
		}
		reply(w, done, nil)
	}
}

func uploaded(done int, act func(r *http.Request, name, text string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if name, text, ok := upload(w, r); ok {
			perform(done, func(r *http.Request) error { return act(r, name, text) })(w, r)
		}
	}
}
