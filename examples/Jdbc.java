// Read your own write with Java and the PostgreSQL JDBC driver (42.2.6 or
// later).
//
//   java -cp postgresql.jar Jdbc.java "$PRIMARY" "$REPLICA"
//
// Run with OpenJDK 17 and pgjdbc 42.5.5.

import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import org.postgresql.PGConnection;

class Jdbc {
    public static void main(String[] args) throws SQLException {
        try (Connection primary = connect(args[0]);
             Connection replica = connect(args[1])) {
            primary.setAutoCommit(false);
            int written;
            try (ResultSet rs = primary.createStatement().executeQuery(
                    "UPDATE profiles SET version = version + 1"
                    + " WHERE id = 1 RETURNING version")) {
                rs.next();
                written = rs.getInt(1);
            }
            primary.commit();

            // No round trip: it came with the reply to the commit.  Take it
            // before the connection goes back to its pool.
            String token = primary.unwrap(PGConnection.class)
                .getParameterStatus("ryw.token");

            PreparedStatement read = replica.prepareStatement(
                "SELECT version FROM profiles"
                + " WHERE id = 1 AND ryw_require(?, ?)");
            read.setString(1, token);
            read.setInt(2, 5000);
            try (ResultSet rs = read.executeQuery()) {
                rs.next();
                System.out.printf("written %d, token %s, seen %d%n",
                    written, token, rs.getInt(1));
            }
        }
    }

    // From postgresql://user:password@host:port/database
    static Connection connect(String uri) throws SQLException {
        URI u = URI.create(uri);
        String[] user = u.getUserInfo().split(":", 2);
        return DriverManager.getConnection(
            "jdbc:postgresql://" + u.getAuthority().replaceFirst(".*@", "")
            + u.getPath(), user[0], user[1]);
    }
}
