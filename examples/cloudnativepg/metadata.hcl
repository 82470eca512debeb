# In the form of github.com/cloudnative-pg/postgres-extensions-containers.
metadata = {
  name                     = "ryw"
  sql_name                 = "ryw"
  image_name               = "ryw"
  licenses                 = ["PostgreSQL"]
  shared_preload_libraries = ["ryw"]
  postgresql_parameters    = {}
  extension_control_path   = []
  dynamic_library_path     = []
  ld_library_path          = []
  bin_path                 = []
  env                      = {}
  auto_update_os_libs      = false
  required_extensions      = []
  create_extension         = true

  versions = {
    trixie = {
      "18" = {
        package = "1.1.0-1"
        sql     = "1.1"
      }
    }
  }
}
